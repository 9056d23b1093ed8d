"""What the peers' programs have in common: one process takes one sample and prints it as JSON."""

import json
import pathlib
import sys


def random_prompts(work, vocabulary, seed):
  """Token ids, [sequences][prompt]: no prefix that a cache could know."""
  import numpy
  shape = (work["sequences"], work["prompt"])
  return numpy.random.default_rng(seed).integers(0, vocabulary, shape, dtype=numpy.int64)


def peak_rss_mb():
  """The most memory that this process has held (Linux), Python's own with it."""
  status = pathlib.Path("/proc/self/status").read_text()
  return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def serve(measure):
  """Calls `measure(work, settings)` with the two JSON objects of the command line and prints what it returns."""
  sample = measure(json.loads(sys.argv[1]), json.loads(sys.argv[2]))
  print(json.dumps(sample))
