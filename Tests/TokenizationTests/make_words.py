"""Makes `Fixtures/words.json`: how PyPI `tokenizers` cuts tricky and random strings into words.

`cases` holds of each `text` the byte lengths of its words, in order, under the name of the pre-tokeniser.
The random strings together hold both sides of every class boundary of `UnicodeClasses.swift`.

Run: `python3 Tests/TokenizationTests/make_words.py` with tokenizers installed; the fixture names its version.
"""

import json
import pathlib
import random
import sys

import tokenizers
from tokenizers import Regex
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "Sources" / "Tokenization"))
from make_unicode_classes import class_runs

QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# A pattern that no scanner knows: PCRE2 runs it.
OTHER = r"[A-Z]?[a-z]+|\d{1,2}$|(?<=:)x*|^#+"

digits = Digits(individual_digits=True)
PRE_TOKENIZERS = {
  "qwen2": Split(Regex(QWEN % ""), "isolated"),
  "llama3": Split(Regex(QWEN % "{1,3}"), "isolated"),
  "gpt2": Split(Regex(GPT2), "isolated"),
  "smollm": Sequence([digits, Split(Regex(GPT2), "isolated")]),
  "other": Split(Regex(OTHER), "isolated"),
}
# How the published files say the last two; the offsets must agree.
PUBLISHED = {
  "gpt2": ByteLevel(add_prefix_space=False, use_regex=True),
  "smollm": Sequence([digits, ByteLevel(add_prefix_space=False, use_regex=True)]),
}

SPACES = [
  "", " ", "  ", "   ", "\t", " \t", "\t ", "\n", " \n", "\n ", "\r\n", " \r\n \r\n  ", "\n\n\n", "\n \n \n",
  "\r", "\r\r\n \t", "\v", "\f \n", "\x85", "\x85 ", "\u00a0", " \u00a0", "\u00a0 ", "\u3000",
  "\u3000\u3000 ", "\u2028", "\u2028\n", "\u2003\u2003", "\u200b", "\u180e", "\ufeff", "\x1c",
  "\u1680 \u205f",
]
CONTRACTIONS = [
  "'s", "'S", "'t", "'T", "'re", "'RE", "'rE", "'Re", "'ve", "'VE", "'m", "'M", "'ll", "'LL", "'lL", "'d",
  "'D", "'\u017f", "'r", "'v", "'l", "'rx", "'lx", "'x", "''s", "' s", "'", "\u2019s", "'\u017fe", "'se",
  "'\u00e9", "'1", "'\n", "'sll've", "\u02bcs", "'\u0130", "'\u212a", "'\u00c5", "'\u013f",
]
TEXTS = [
  "Hello, world!", "I'll've been there, don't you think we're he'd?", "x=1;y=22;z=333;w=4444;v=55555 666666",
  " 1", "  1", "a1b22c333", "3.14159e-10", "1,234,567.89", "\u00bd\u00b2\u00b3\u2460\u2167\u3007\u4e00",
  "\u0661\u0662\u0663\u0664", "\u09e7\u09e8\u09e9 \u0967\u0968\u0969\u096a",
  "\U0001d7ce\U0001d7cf\U0001d7d0\U0001d7d1", "\U00011de0\U00011de1a\U00016ff4 \U00016ff4", "a\U00011de0'll",
  "def f(x):\n    return x\n\n\nclass A:\n\tpass\n", "if (a) {\r\n\tb();\r\n}\r\n", "!!!\n\n!?\r\nx", " !!\n",
  "  !!", "\t!!", "\tword", "\u00a0word", "\u3000\u6f22\u5b57", "\nword", "\r\nword", "(word", "((word",
  " (word", "_word_ __init__", "#!/usr/bin/env", "\u6f22\u5b57\u304b\u306a\u30ab\u30ca\u3002\u6587\u3001",
  "\ud55c\uad6d\uc5b4 \ubb38\uc7a5\uc785\ub2c8\ub2e4",
  "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645\u060c 123",
  "\u0645\u064e\u0631\u0652\u062d\u064e\u0628\u064b\u0627", "\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd",
  "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e",
  "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "e\u0301te\u0301 cafe\u0301", "\u0301a", " \u0301",
  "\u00e9t\u00e9 na\u00efve co\u00f6p \u00d8re \u00df\u00df", "\u0130stanbul \u0131\u015f\u0131k",
  "\u01c5 \ufb01n", "\u00aa\u00ba\u00b5", "\U0001f600", " \U0001f600\U0001f600",
  "\U0001f468\u200d\U0001f469\u200d\U0001f467 family", "\U0001f1eb\U0001f1f7\n", "a\U0001f44d\U0001f3fdb",
  "\u2764\ufe0f", "\u2014dash\u2014", "\u201cquoted\u201d", "\U0010ffff\U000e0001", "\ufffd\ufffe", "\x00",
  "a\x00b", "\x7f", "\U00020000\U0002f800\U000323af\U000323b0", "\U000105c0a", "a" * 500, " " * 300,
  " " * 300 + "a", "\n" * 200 + " " * 100 + "b", "9" * 100, "!" * 200, "'" * 50 + "s", "\u6f22" * 150,
  "a " * 80, "\U0001f600" * 60, " \n" * 60 + " ", "Key: xxx y:z\n## Title\n#12 345\n67", "FooBar:: x:",
]


def tricky():
  texts = list(TEXTS)
  for space in SPACES:
    texts += [space, f"{space}a", f"a{space}b{space}", f"a{space}1", f"!{space}!"]
  for contraction in CONTRACTIONS:
    texts += [contraction, f"I{contraction} go", f" {contraction}x"]
  return list(dict.fromkeys(texts))


def random_texts():
  generator = random.Random(20)
  boundaries = {c for start, _ in class_runs() for c in (start - 1, start)}
  scalars = [c for c in boundaries if c >= 0 and not 0xD800 <= c < 0xE000]
  while len(scalars) % 100:
    scalars.append(generator.randrange(0xE000, 0x110000))
  scalars.sort()
  generator.shuffle(scalars)
  common = list("  \n\r\t'sSl1e!") + ["\u00a0"]
  for start in range(0, len(scalars), len(scalars) // 100):
    text = ""
    for scalar in scalars[start:start + len(scalars) // 100]:
      text += chr(scalar) + "".join(generator.choices(common, k=generator.choice([0, 0, 0, 1, 2])))
    yield text


def words(pre_tokenizer, text):
  """Byte lengths of the words of `text`."""
  ranges = [offsets for _, offsets in pre_tokenizer.pre_tokenize_str(text)] if text else []
  assert [a for a, _ in ranges] + [len(text)] == [0] + [b for _, b in ranges] or not text, repr(text)
  return [len(text[a:b].encode()) for a, b in ranges]


def case(text):
  expected = {name: words(pre_tokenizer, text) for name, pre_tokenizer in PRE_TOKENIZERS.items()}
  for name, pre_tokenizer in PUBLISHED.items():
    assert expected[name] == words(pre_tokenizer, text), (name, text)
  return json.dumps({"text": text, **expected}, separators=(",", ":"))


if __name__ == "__main__":
  cases = [case(text) for text in [*tricky(), *random_texts()]]
  patterns = json.dumps({"qwen2": QWEN % "", "llama3": QWEN % "{1,3}", "gpt2": GPT2, "other": OTHER})
  head = f'{{"tokenizers": "{tokenizers.__version__}",\n"patterns": {patterns},\n"cases": [\n'
  file = pathlib.Path(__file__).parent / "Fixtures" / "words.json"
  file.write_text(head + ",\n".join(cases) + "\n]}\n")
