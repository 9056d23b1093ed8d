#!/usr/bin/env python3
"""Cuts three public data sets into text to calibrate on and other text to evaluate on.

  calibration_texts.py WIKI HUMANEVAL ALPACA FOLDER

WIKI is WikiText-2's `wiki.test.raw`, HUMANEVAL `HumanEval.jsonl.gz`, ALPACA a JSON list of instructions in Alpaca's
format. FOLDER gets `{wiki,code,chat}.{calibration,evaluation}.txt`: of WikiText-2 the first half is for evaluation, of
the others every second item, code with its solution, instructions as a chat of the Qwen models.
"""

import gzip
import json
import pathlib
import sys

CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>\n"


def instruction(item):
  return item["instruction"] + ("\n" + item["input"] if item["input"] else "")


def main(wiki, human_eval, alpaca, folder):
  text = pathlib.Path(wiki).read_text(encoding="utf-8")
  middle = text.index("\n = ", len(text) // 2) + 1
  with gzip.open(human_eval, "rt", encoding="utf-8") as file:
    code = [item["prompt"] + item["canonical_solution"] + "\n\n" for item in map(json.loads, file)]
  chat = [
    CHAT.format(instruction(item), item["output"])
    for item in json.loads(pathlib.Path(alpaca).read_text(encoding="utf-8"))]
  parts = {
    "wiki": (text[middle:], text[:middle]),
    "code": ("".join(code[1::2]), "".join(code[::2])),
    "chat": ("".join(chat[1::2]), "".join(chat[::2]))}
  target = pathlib.Path(folder)
  target.mkdir(parents=True, exist_ok=True)
  for name, (calibration, evaluation) in parts.items():
    (target / f"{name}.calibration.txt").write_text(calibration, encoding="utf-8")
    (target / f"{name}.evaluation.txt").write_text(evaluation, encoding="utf-8")


if __name__ == "__main__":
  if len(sys.argv) != 5:
    sys.exit(__doc__)
  main(*sys.argv[1:])
