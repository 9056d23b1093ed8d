"""How each engine takes one sample, always in a process of its own, so that no engine's memory or waiting threads
stand beside another's measurement.

A sample is a dictionary: `prefill` and `decode` in tokens per second over all sequences, `load` in seconds (page
cache warm), `peak_rss_mb`; or `tokenize` in MB per second; or `bandwidth` in GB per second. With it go `version` and
`others`, the share of the processors that other programs took meanwhile.
"""

import dataclasses
import json
import os
import pathlib
import resource
import subprocess

import environments

HERE = pathlib.Path(__file__).resolve().parent


class EngineFailure(Exception):
  """An engine that ends without a sample."""


@dataclasses.dataclass(frozen=True)
class Work:
  """What an engine has to do: read a prompt for each sequence, then generate a token for each, `generate` times."""
  model: str
  threads: int
  prompt: int
  generate: int
  sequences: int
  # A file to tokenise; then the numbers above do not count.
  text: str | None = None


class Kindred:
  """`kindred bench`."""
  column = "Kindred"
  settings = ({},)

  def __init__(self, executable, instruction_set=None):
    self.executable = executable
    self.instruction_set = instruction_set

  def sample(self, work, settings):
    # `kindred bench` takes the first token from the prompt, so n steps are n + 1 tokens.
    result = run_json([
      self.executable, "bench", "-m", work.model, "--threads", str(work.threads), "--kv-type", "f16",
      "--prompt-tokens", str(work.prompt), "--generate-tokens", str(work.generate + 1),
      "--batch", str(work.sequences), "--repeat", "1", "--json"], KINDRED_ISA=self.instruction_set)
    return {
      "prefill": result["prefill_tokens_per_second"], "decode": result["decode_tokens_per_second"],
      "load": result["load_seconds"], "peak_rss_mb": result["peak_rss_bytes"] / 1e6,
      "weights_and_kv_mb": (result["weight_bytes"] + result["kv_bytes"]) / 1e6, "version": result["isa"],
      "others": result["others"]}


class KindredTokenizer:
  """`tokenizer/main.swift`, which `swift build` makes beside the command-line tool."""
  column = "Kindred"
  settings = ({},)

  def sample(self, work, settings):
    build = ["swift", "build", "-c", "release", "--package-path", HERE.parents[1], "--product", "KindredTokenizerTimer"]
    subprocess.run(build, capture_output=True, check=True)
    return run_json([HERE.parents[1] / ".build/release/KindredTokenizerTimer", work.model, work.text])


@dataclasses.dataclass(frozen=True)
class Peer:
  """A program beside this file that runs in an environment from PyPI."""
  column: str
  script: str
  environment: environments.Environment
  # What can be chosen for it, the likeliest first. All are tried once; the fastest is measured.
  settings: tuple = ({},)

  def sample(self, work, settings):
    return run_json([
      self.environment.python, HERE / self.script, json.dumps(dataclasses.asdict(work)), json.dumps(settings)])


LLAMA_SETTINGS = tuple({"flash": flash, "repack": repack} for repack in (True, False) for flash in (True, False))
LLAMA_CPP = Peer("llama.cpp", "llama_cpp_engine.py", environments.LLAMA_CPP, LLAMA_SETTINGS)
LLAMA_CPP_AVX2 = dataclasses.replace(LLAMA_CPP, environment=environments.LLAMA_CPP_AVX2)
OPENVINO = Peer(
  "OpenVINO GenAI", "openvino_engine.py", environments.OPENVINO, ({"attention": "PA"}, {"attention": "SDPA"}))
TOKENIZERS = Peer("tokenizers", "tokenizers_engine.py", environments.TOKENIZERS)
MEMORY = Peer("memory", "memory_ceiling.py", environments.GGUF)


def run_json(command, **variables):
  """Runs `command` and parses the last line of its standard output; adds `others`.

  Variables that are `None` are removed from the command's environment, the others are set.
  """
  environment = {name: value for name, value in (os.environ | variables).items() if value is not None}
  total, busy = processor_seconds()
  own = children_seconds()
  done = subprocess.run(command, capture_output=True, text=True, env=environment)
  total_after, busy_after = processor_seconds()
  lines = done.stdout.strip().splitlines()
  if done.returncode != 0 or not lines:
    message = (done.stderr.strip().splitlines() or ["nothing on standard error"])[-1]
    raise EngineFailure(f"{pathlib.Path(command[1]).name}: exit {done.returncode}: {message}")
  others = (busy_after - busy - (children_seconds() - own)) / (total_after - total)
  return json.loads(lines[-1]) | {"others": max(0, round(others, 3))}


def processor_seconds():
  """Seconds of all processors since the machine started, and those that were not idle (Linux)."""
  fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
  ticks = os.sysconf("SC_CLK_TCK")
  return sum(fields) / ticks, (sum(fields) - fields[3] - fields[4]) / ticks


def children_seconds():
  """Processor seconds of all processes that were started here and have ended."""
  usage = resource.getrusage(resource.RUSAGE_CHILDREN)
  return usage.ru_utime + usage.ru_stime
