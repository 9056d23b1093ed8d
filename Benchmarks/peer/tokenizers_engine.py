"""PyPI `tokenizers` in one thread, without the offsets that its other calls compute: encodes the file twice, the
second time measured."""

import os
import pathlib
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import tokenizers

import worker


def measure(work, settings):
  tokenizer = tokenizers.Tokenizer.from_file(str(pathlib.Path(work["model"]).parent / "tokenizer.json"))
  text = pathlib.Path(work["text"]).read_text()
  tokenizer.encode_batch_fast([text], add_special_tokens=False)
  start = time.perf_counter()
  [encoding] = tokenizer.encode_batch_fast([text], add_special_tokens=False)
  seconds = time.perf_counter() - start
  return {
    "tokenize": len(text.encode()) / 1e6 / seconds, "tokens": len(encoding.ids),
    "version": f"PyPI tokenizers {tokenizers.__version__}"}


if __name__ == "__main__":
  worker.serve(measure)
