"""Makes `Fixtures/mmlu.json`: log-likelihoods of the letters A to D of 20 MMLU questions, by PyPI `transformers`.

The weights are dequantised to F32 (`GenerationTests/make_references.py`), so a difference is the engine's. The prompts,
5-shot, are put together here as lm-evaluation-harness does. The questions are the first of each of the 20 subjects
with the shortest examples, to save time. Per model: `file`, and per question `id`, `tokens` of the prompt, and
`log_likelihoods` of " A", " B", " C" and " D", each of which is one token.

Run: `python3 Tests/EvaluationTests/make_mmlu.py [NAME…]` with torch, transformers, tokenizers and gguf installed, the
models in `$KINDRED_HOME/models` (`kindred fetch`) and MMLU in `../shared/data`. The 1.5B model needs 9 GB of memory;
names given on the command line are made anew and the others kept.
"""

import csv
import json
import pathlib
import sys

import gguf
import torch

TESTS = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "GenerationTests")]
from make_references import HOME, make_model, make_tokenizer
from tiny_models import versions

MODELS = ["qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"]
OUTPUT = pathlib.Path(__file__).parent / "Fixtures" / "mmlu.json"
DATA = pathlib.Path(__file__).parents[3] / "shared" / "data" / "mmlu"
LETTERS = "ABCD"
QUESTIONS = 20
SHOTS = 5


def records(path):
  with open(path, newline="", encoding="utf-8") as file:
    return list(csv.reader(file))


def question(record):
  answers = "".join(f"{letter}. {answer}\n" for letter, answer in zip(LETTERS, record[1:5]))
  return f"{record[0].strip()}\n{answers}Answer:"


def prompts():
  """The id and the prompt of each question."""
  shortest = sorted(DATA.glob("dev/*_dev.csv"), key=lambda path: (path.stat().st_size, path.name))[:QUESTIONS]
  assert len(shortest) == QUESTIONS, f"no MMLU in {DATA}"
  for dev in sorted(shortest):
    subject = dev.name.removesuffix("_dev.csv")
    text = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
    text += "".join(f"{question(record)} {record[5]}\n\n" for record in records(dev)[:SHOTS])
    yield f"{subject}_test:1", text + question(records(DATA / "test" / f"{subject}_test.csv")[0])


@torch.no_grad()
def log_likelihoods(model, tokens, letters):
  logits = model(torch.tensor([tokens]), use_cache=False, logits_to_keep=1).logits[0, -1]
  return [round(x, 5) for x in torch.log_softmax(logits, -1)[letters].tolist()]


def reference(name):
  path = next((HOME / "models" / name).glob("*.gguf"))
  reader = gguf.GGUFReader(path)
  tokenizer = make_tokenizer(reader.fields)
  model = make_model(reader)
  letters = [tokenizer.encode(f" {letter}", add_special_tokens=False).ids for letter in LETTERS]
  assert all(len(ids) == 1 for ids in letters)
  made = []
  for id_, prompt in prompts():
    tokens = tokenizer.encode(prompt, add_special_tokens=False).ids
    assert tokenizer.encode(f"{prompt} A", add_special_tokens=False).ids == tokens + letters[0]
    values = log_likelihoods(model, tokens, [ids[0] for ids in letters])
    print(f"{name} {id_}, {len(tokens)} tokens: {values}", flush=True)
    made.append({"id": id_, "tokens": len(tokens), "log_likelihoods": values})
  return {"file": path.name, "questions": made}


def main():
  OUTPUT.parent.mkdir(exist_ok=True)
  made = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {}
  for name in sys.argv[1:] or MODELS:
    made |= {"versions": versions(), name: reference(name)}
    OUTPUT.write_text(json.dumps(made).replace('{"', '{\n"') + "\n")


if __name__ == "__main__":
  main()
