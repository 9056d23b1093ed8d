"""Makes the tokenizer fixtures: what PyPI `tokenizers` and `sentencepiece` make of texts.

Small tokenizers of each kind are trained here and saved as `tokenizer.json` or GGUF metadata, with the token ids of
`strings.json` and a checksum of the ids of each text of a pseudo-random generator (`Generator`, which
`TokenizerFixtures.swift` has too). Of the real vocabularies only checksums are kept: give the GGUF files and the folder
with `wikitext2/wiki.test.raw` and `humaneval/HumanEval.jsonl.gz` to renew them.

Run: python3 make_tokenizers.py [--data FOLDER --qwen2 FILE.gguf --smollm2 FILE.gguf --gemma FILE.gguf]
The versions that it ran with stand in `versions.json`.
"""

import argparse
import gzip
import io
import json
import pathlib

import gguf
import sentencepiece
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).parent / "Fixtures" / "tokenizers"
RANDOM_TEXTS = 300
REAL_RANDOM_TEXTS = 20_000

QWEN2 = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
# A pattern that no scanner knows (Mistral's of 2024, shortened): it goes through the regular expression library.
OTHER = (
  r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
  r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
  r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

STRINGS = [
  "", " ", "  ", "\n", "\r\n", " \n \n x", "a", " a", "a ", "\t\tx", "Hello, world!", "hello  world   again",
  "def fibonacci(n):\n    if n < 2:\n        return n\n    return fibonacci(n - 1) + fibonacci(n - 2)\n",
  "I'm sure they'll say you've won, it's John's; we'd've DON'T SHE'LL 'S 'ſ ’s", "''''s 'sss 'ree 'rE 'Ve 'lL 'l",
  "1234567890 3.14159 1,000,000 12ab34 ²³ ½ Ⅷ ٣٤ १२", "a1 1a 1 1  1\n1", "x=1;y=22;z=333;w=4444",
  "Ünïcödé café cafe\u0301 A\u030a \u1e9b\u0323 \u2126 \u212b ﬁ ŉ", "한국어 각 \u1100\u1161\u11a8 日本語 中文，標點。ひらがな カタカナ",
  "Привет, мир! Ελληνικά עברית العربية ไทย हिन्दी", "👩‍👩‍👧‍👦 🇩🇪 👍🏽 ❤️ 🤷🏾‍♂️", "\u00a0\u2003\u3000\u0085\u2028x\u00a0y",
  "a\u0000b\u0001\u007f\ufeff\ufffd\uffff", "\U0001d400\U0001d7d8 \U0002f800 \U0010ffff \U000e0041", "      indented\n\n\n   more  \n",
  "!!!???...,,,---", " !x ?y (z) [1] {2} <3>", "http://example.com/a/b?c=d&e=f#g", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
  "the the the theatre there then", "▁ ▁▁ a▁b ▁a", "ab" * 40, "<|start|>", "x<|start|>y", "<|start|><|end|>", " <|start|> x <|end|> ",
  "<|star", "<|start|", "<tool>call</tool>", "<tool><tool>", "a <left> b <right> c", "\u2003<left>\u00a0<right>\u2003x",
  "word wordy word, sword word", "word", "wordword word", "<0x41><0xE2>", "é è", "CAFÉ", "<s>hi</s>", "<s> hi", "\n\n\n\n",
]  # fmt: skip

CORPUS = STRINGS + [
  "The quick brown fox jumps over the lazy dog, and then the dog jumps over the fox again.",
  "In the beginning there was nothing but the sound of the sea, and the sea was there for a thousand years.",
  "for index in range(10):\n    print(index, end=' ')\n    if index > 5:\n        break\n", "It's John's book; they're here.",
  "Zwei Straßen weiter übt jemand Flöte. Où est la bibliothèque? ¿Dónde está?", "这是一个测试。これはテストです。이것은 시험입니다.",
] * 3  # fmt: skip


class Generator:
  """A linear congruential generator (Knuth's MMIX constants) and texts made with it."""

  def __init__(self, seed):
    self.state = seed

  def below(self, bound):
    self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
    return (self.state >> 33) % bound

  SPACES = " \n\r\t\u00a0\u2003\u3000\u0085"
  PIECES = ["'s", "'S", "'ſ", "'re", "'LL", "n't", "<|im_start|>", "<|start|>", "<tool>", "12345", "  ", "the", " word", "▁"]

  def piece(self):
    kind = self.below(10)
    if kind < 3:
      return chr(0x20 + self.below(95))
    if kind == 3:
      return self.SPACES[self.below(len(self.SPACES))]
    if kind == 4:
      return self.PIECES[self.below(len(self.PIECES))]
    start, count = [(0xA0, 0x500), (0x300, 0x70), (0x1100, 0x100), (0x3000, 0x6F00), (0, 0x110000)][kind - 5]
    scalar = start + self.below(count)
    return chr(0xFFFD if 0xD800 <= scalar < 0xE000 else scalar)

  def text(self):
    return "".join(self.piece() for _ in range(1 + self.below(24)))


def checksum(numbers, hash=0xCBF29CE484222325):
  """FNV-1a over numbers as 32-bit little-endian."""
  for number in numbers:
    for byte in (number & 0xFFFFFFFF).to_bytes(4, "little"):
      hash = (hash ^ byte) * 0x100000001B3 % 2**64
  return hash


def short(numbers):
  """A checksum of 32 bits, as text."""
  hash = checksum(numbers)
  return f"{(hash >> 32) ^ (hash & 0xFFFFFFFF):08x}"


def expectations(encode, encode_plain=None, decode=None, vocabulary_size=0):
  generator = Generator(1)
  result = {"ids": [encode(text) for text in STRINGS]}
  result["random"] = " ".join(short(encode(generator.text())) for _ in range(RANDOM_TEXTS))
  if encode_plain:
    result["plain"] = [encode_plain(text) for text in STRINGS]
  if decode:
    generator = Generator(2)
    sequences = [[generator.below(vocabulary_size) for _ in range(1 + generator.below(12))] for _ in range(100)]
    result["decoded"] = " ".join(short(decode(ids).encode()) for ids in sequences)
  return result


def write(name, value):
  (HERE / name).write_text(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")


def dump(name, tokenizer, byte_decodes=True):
  """Saves a tokenizer and what it makes of the texts."""
  (HERE / f"{name}.tokenizer.json").write_text(tokenizer.to_str())
  plain = Tokenizer.from_str(tokenizer.to_str())
  plain.encode_special_tokens = True
  decode = (lambda ids: tokenizer.decode(ids, skip_special_tokens=False)) if byte_decodes else None
  write(
    f"{name}.expected.json",
    expectations(
      lambda text: tokenizer.encode(text).ids,
      lambda text: plain.encode(text, add_special_tokens=False).ids,
      decode,
      tokenizer.get_vocab_size(),
    ),
  )


def byte_level(pre_tokenizer, size=520, normalizer=None, ignore_merges=False):
  tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
  if normalizer:
    tokenizer.normalizer = normalizer
  tokenizer.pre_tokenizer = pre_tokenizer
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.train_from_iterator(
    CORPUS,
    trainers.BpeTrainer(
      vocab_size=size, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    ),
  )
  return tokenizer


def split(pattern):
  return pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(Regex(pattern), "isolated"),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )


def with_specials(tokenizer):
  tokenizer.add_special_tokens(["<|start|>", "<|end|>"])
  tokenizer.add_tokens([AddedToken(text, normalized=False) for text in ["<tool>", "</tool>"]])
  return tokenizer


def characters(normalizer, pre_tokenizer, decoder, size=500):
  """SentencePiece's kind of BPE as `tokenizers` has it."""
  tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
  if normalizer:
    tokenizer.normalizer = normalizer
  if pre_tokenizer:
    tokenizer.pre_tokenizer = pre_tokenizer
  tokenizer.decoder = decoder
  special = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
  # Trained word by word, else whole sentences would become tokens.
  tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
  # Of few letters, so that others become byte tokens.
  latin = [text for text in CORPUS if all(0x20 <= ord(character) < 0x180 for character in text)]
  tokenizer.train_from_iterator(latin, trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False))
  state = json.loads(tokenizer.to_str())
  state["added_tokens"] = state["added_tokens"][:3]
  state["pre_tokenizer"] = json.loads(pre_tokenizer.__getstate__()) if pre_tokenizer else None
  tokenizer = Tokenizer.from_str(json.dumps(state))
  tokenizer.post_processor = processors.TemplateProcessing(
    single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
  )
  return tokenizer


def small_json():
  qwen2 = with_specials(byte_level(split(QWEN2), normalizer=normalizers.NFC()))
  dump("qwen2", qwen2)

  llama3 = with_specials(byte_level(split(LLAMA3), ignore_merges=True))
  start = llama3.token_to_id("<|start|>")
  llama3.post_processor = processors.Sequence(
    [
      processors.ByteLevel(trim_offsets=False),
      processors.TemplateProcessing(single="<|start|> $A", pair="<|start|> $A $B", special_tokens=[("<|start|>", start)]),
    ]
  )
  # A token that no merges lead to, so that taking whole words shows.
  state = json.loads(llama3.to_str())
  state["model"]["merges"] = [merge for merge in state["model"]["merges"] if "".join(merge) != "Ġthe"]
  state["model"]["merges"] = [" ".join(merge) for merge in state["model"]["merges"]]
  llama3 = Tokenizer.from_str(json.dumps(state))
  llama3_text = json.dumps(state, ensure_ascii=False, separators=(",", ":"))
  dump("llama3", llama3)
  # Merges as "a b", as files before 2024 have them; `to_str` writes pairs.
  (HERE / "llama3.tokenizer.json").write_text(llama3_text)

  gpt2 = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
  gpt2.add_special_tokens(["<|start|>"])
  gpt2.add_tokens(
    [
      AddedToken("<left>", lstrip=True, normalized=False),
      AddedToken("<right>", rstrip=True, normalized=False),
    ]
  )
  dump("gpt2", gpt2)

  digits = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
  dump("smollm", with_specials(byte_level(pre_tokenizers.Sequence(digits))))
  dump("other", with_specials(byte_level(split(OTHER))))

  space = normalizers.Replace(" ", "▁")
  tail = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
  strip = decoders.Strip(" ", 1, 0)
  # `tokenizers` replaces each byte of a broken character where Swift replaces its longest prefix: no random decoding.
  dump("llama2", characters(normalizers.Sequence([normalizers.Prepend("▁"), space]), None, decoders.Sequence(tail + [strip])), False)
  metaspace = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
  dump("mistral", characters(None, metaspace, decoders.Sequence(tail + [strip])), False)
  dump("gemma", characters(space, pre_tokenizers.Split(" ", "merged_with_previous"), decoders.Sequence(tail)), False)
  return {"qwen2": ("qwen2", qwen2), "llama3": ("llama-bpe", llama3), "smollm": ("smollm", Tokenizer.from_file(str(HERE / "smollm.tokenizer.json")))}


def small_gguf(tokenizers_by_name):
  """The same vocabularies as GGUF metadata: the ids must be those of the `tokenizer.json`."""
  for name, (pre, tokenizer) in tokenizers_by_name.items():
    state = json.loads(tokenizer.to_str())
    added = {token["id"]: token for token in state["added_tokens"]}
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    tokens = sorted(vocabulary, key=vocabulary.get)
    writer = gguf.GGUFWriter(HERE / f"{name}.gguf", "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([1 if id not in added else 3 if added[id]["special"] else 4 for id in range(len(tokens))])
    merges = state["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    if name == "llama3":
      writer.add_bos_token_id(vocabulary["<|start|>"])
      writer.add_add_bos_token(True)
    writer.add_eos_token_id(vocabulary["<|end|>"])
    finish(writer)


def finish(writer):
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.close()


def small_sentencepiece():
  """SentencePiece's own BPE, as GGUF files of Llama 2 and Mistral hold it."""
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter([line for text in CORPUS for line in text.replace("\0", "").split("\n") if line]),
    model_writer=model, model_type="bpe", vocab_size=480, byte_fallback=True, character_coverage=0.98, num_threads=1,
    normalization_rule_name="identity", remove_extra_whitespaces=False, hard_vocab_limit=False, minloglevel=2,
    user_defined_symbols=["<tool>"], split_digits=True, allow_whitespace_only_pieces=True,
  )  # fmt: skip
  processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
  writer = gguf.GGUFWriter(HERE / "sentencepiece.gguf", "llama")
  writer.add_tokenizer_model("llama")
  ids = range(processor.get_piece_size())
  writer.add_token_list([processor.id_to_piece(id) for id in ids])
  writer.add_token_scores([processor.get_score(id) for id in ids])
  writer.add_token_types([
    2 if processor.is_unknown(id) else 3 if processor.is_control(id) else 6 if processor.is_byte(id)
    else 4 if processor.id_to_piece(id) == "<tool>" else 1 for id in ids
  ])  # fmt: skip
  writer.add_bos_token_id(processor.bos_id())
  writer.add_eos_token_id(processor.eos_id())
  writer.add_unk_token_id(processor.unk_id())
  finish(writer)
  # Texts without the user-defined symbol only: SentencePiece puts no space before what follows it, GGUF readers do.
  encode = lambda text: processor.encode(text.replace("<tool>", "tool"))
  write("sentencepiece.expected.json", expectations(encode))


def normal_forms():
  """Checksums of the normal form C of every code point of planes 0 to 2, alone and among others that it may join."""
  normalize = normalizers.NFC().normalize_str
  result = {}
  for before, after in [("", ""), ("a", "\u0327\u0301"), ("", "\u0338\u0300"), ("\u1100", "\u11a8"), ("\u0301\u0c46", "\u0323")]:
    hash = checksum([])
    for start in range(0, 0x30000, 256):
      block = [c for c in range(start, start + 256) if not 0xD800 <= c < 0xE000]
      hash = checksum(normalize("".join(before + chr(c) + after + "\n" for c in block)).encode(), hash)
    result[f"{before}|{after}"] = f"{hash:016x}"
  return result


def tokenizer_of(path):
  """The reference tokenizer of a real GGUF file, with the published rules of its family."""
  reader = gguf.GGUFReader(path)
  field = lambda name: reader.fields[f"tokenizer.ggml.{name}"].contents()
  tokens, types = field("tokens"), field("token_type")
  vocabulary = {token: id for id, token in enumerate(tokens)}
  if field("model") == "llama":
    # As `transformers` converts SentencePiece models: every way to make a token of two is a merge, by its score.
    scores, merges = field("scores"), []
    for id, token in enumerate(tokens):
      for left, right in [(token[:cut], token[cut:]) for cut in range(1, len(token)) if types[id] in (1, 4)]:
        if left in vocabulary and right in vocabulary:
          merges.append((-scores[id], vocabulary[left], vocabulary[right], (left, right)))
    merges = [merge[-1] for merge in sorted(merges)]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>"))
  else:
    merges = [tuple(merge.split(" ")) for merge in field("merges")]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.decoder = decoders.ByteLevel()
  if field("model") == "llama":
    assert not field("add_space_prefix")
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
  elif field("pre") == "qwen2":
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = split(QWEN2)
  else:
    assert field("pre") == "smollm"
    digits = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(digits)
  for token, type in zip(tokens, types):
    if type == 3:
      tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True)])
    if type == 4:
      tokenizer.add_tokens([AddedToken(token, normalized=False)])
  return tokenizer


def real(path, data):
  """Checksums over all ids of real texts, the end of each text counting as id -1."""
  tokenizer = tokenizer_of(path)
  prompts = gzip.open(data / "humaneval" / "HumanEval.jsonl.gz", "rt").read().splitlines()
  generator = Generator(3)
  corpora = {
    "wikitext": [(data / "wikitext2" / "wiki.test.raw").read_bytes().decode()],
    "humaneval": [json.loads(line)["prompt"] for line in prompts],
    "random": [generator.text() for _ in range(REAL_RANDOM_TEXTS)],
  }
  result = {}
  for name, texts in corpora.items():
    count, hash, ids = 0, checksum([]), []
    for text in texts:
      encoded = tokenizer.encode(text).ids
      ids += encoded
      hash = checksum(encoded + [-1], hash)
    result[name] = {"texts": len(texts), "count": len(ids), "checksum": f"{hash:016x}", "first": ids[:8], "last": ids[-8:]}
  return result


if __name__ == "__main__":
  parser = argparse.ArgumentParser()
  parser.add_argument("--data", type=pathlib.Path)
  parser.add_argument("--qwen2")
  parser.add_argument("--smollm2")
  parser.add_argument("--gemma")
  arguments = parser.parse_args()
  HERE.mkdir(parents=True, exist_ok=True)
  write("strings.json", STRINGS)
  packages = {package.__name__: package.__version__ for package in (tokenizers, sentencepiece)}
  write("versions.json", packages | {"gguf": __import__("importlib.metadata").metadata.version("gguf")})
  small_gguf(small_json())
  small_sentencepiece()
  write("normal_forms.json", normal_forms())
  if arguments.data:
    write("real.json", {name: real(getattr(arguments, name), arguments.data) for name in ("qwen2", "smollm2", "gemma")})
