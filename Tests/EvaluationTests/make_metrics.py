"""Makes `Fixtures/metrics.json`: F1, exact match, ROUGE and Spearman's rho by PyPI's implementations.

- `answers`: 200 random pairs, by `torchmetrics.functional.text.squad`, whose per-pair functions are those of SQuAD;
- `summaries`: 200 random pairs, by `rouge` (not `rouge-score`, which differs): it is what LongBench uses;
- `correlations`: random samples with and without ties, by `scipy.stats.spearmanr`.

Run: `python3 Tests/EvaluationTests/make_metrics.py` with torch, torchmetrics, rouge and scipy installed.
"""

import importlib.metadata
import json
import pathlib
import random

import rouge
import scipy.stats
from torchmetrics.functional.text import squad

OUTPUT = pathlib.Path(__file__).parent / "Fixtures" / "metrics.json"
WORDS = [
  "The", "the", "a", "An", "THE", "them", "theory", "cat", "Cat.", "cats", "sat", "on", "mat", "mat,", "U.S.", "1,234",
  "1234", "it's", "its", "état", "ÉTAT", "naïve", "a–b", "the—end", "über-a", "«the»", "a\u0301", "日本", "½", "_the_",
  "(a)", "x.y", "don't", "\u00a0", "new\tline", "end\x1cof", "ǅ", "ΑΣ"]
SPACES = [" "] * 8 + ["  ", "\n", "\t", " \u2003"]


def text(generator, most, stops):
  """Up to `most` words, which end a sentence with probability `stops`."""
  result = ""
  for _ in range(generator.randint(0, most)):
    result += generator.choice(WORDS) + ("." if generator.random() < stops else "")
    result += generator.choice(SPACES)
  return result


def changed(generator, original):
  """The words of a text with some left out, exchanged or moved, so that much is alike."""
  words = original.split(" ")
  for _ in range(generator.randint(0, 4)):
    index = generator.randrange(len(words))
    change = generator.randrange(3)
    if change == 0:
      words[index] = generator.choice(WORDS)
    elif change == 1:
      words.insert(generator.randrange(len(words)), words.pop(index))
    else:
      words[index] = words[index].upper()
  return " ".join(words)


def answers(generator):
  pairs = []
  while len(pairs) < 200:
    reference = text(generator, 8, 0.05)
    answer = changed(generator, reference) if generator.random() < 0.7 else text(generator, 8, 0.05)
    scores = squad(
      {"prediction_text": answer, "id": "0"}, {"answers": {"answer_start": [0], "text": [reference]}, "id": "0"})
    pairs.append({
      "answer": answer, "reference": reference, "f1": scores["f1"].item() / 100,
      "exact_match": scores["exact_match"].item() / 100})
  return pairs


def summaries(generator):
  pairs = []
  while len(pairs) < 200:
    reference = text(generator, 60, 0.12)
    summary = changed(generator, reference) if generator.random() < 0.5 else text(generator, 60, 0.12)
    try:
      scores = rouge.Rouge().get_scores([summary], [reference])[0]
    except ValueError:  # no sentence: LongBench counts it as 0
      scores = {name: {"f": 0.0} for name in ["rouge-1", "rouge-2", "rouge-l"]}
    pairs.append({
      "summary": summary, "reference": reference, "rouge1": scores["rouge-1"]["f"],
      "rouge2": scores["rouge-2"]["f"], "rougeL": scores["rouge-l"]["f"]})
  return pairs


def correlations(generator):
  samples = []
  for count, values in [(2, 100), (3, 3), (10, 4), (50, 5), (50, 10_000), (200, 20), (200, 2)]:
    first = [generator.randrange(values) / 4 for _ in range(count)]
    second = [x + generator.randrange(values) / 2 for x in first]
    rho = scipy.stats.spearmanr(first, second).statistic
    assert rho == rho, "constant sample: choose another seed"
    samples.append({"first": first, "second": second, "rho": rho})
  return samples


def main():
  generator = random.Random(5)
  made = {
    "versions": {name: importlib.metadata.version(name) for name in ["torchmetrics", "rouge", "scipy"]},
    "answers": answers(generator), "summaries": summaries(generator), "correlations": correlations(generator)}
  OUTPUT.parent.mkdir(exist_ok=True)
  OUTPUT.write_text(json.dumps(made, ensure_ascii=False).replace('{"', '{\n"') + "\n")


if __name__ == "__main__":
  main()
