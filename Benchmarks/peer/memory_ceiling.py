"""How fast this machine's memory can be read: each thread looks for the largest of its own 250 million floats."""

import threading
import time

import numpy

import worker

ELEMENTS, REPETITIONS = 250_000_000, 5


def measure(work, settings):
  blocks = [numpy.ones(ELEMENTS, numpy.float32) for _ in range(work["threads"])]
  rates = []
  for _ in range(REPETITIONS):
    threads = [threading.Thread(target=block.max) for block in blocks]
    start = time.perf_counter()
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    rates.append(sum(block.nbytes for block in blocks) / (time.perf_counter() - start) / 1e9)
  return {"bandwidth": max(rates), "version": f"numpy {numpy.__version__}"}


if __name__ == "__main__":
  worker.serve(measure)
