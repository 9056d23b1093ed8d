"""Runs `kindred bench` and llama.cpp alternately on the same file with the same threads.

Prefill: random tokens into an empty KV cache, logits of the last. Decode: greedy, one token at a time, after
a prompt of one token (depth 0). Both choose the most likely token at each step, both keep the cache in F16,
and llama.cpp runs as `llama-bench` does: micro-batches of 512, flash attention on `auto`, weights repacked.
Every sample is a process of its own that does the work once unmeasured and once measured; the engines take
turns, so that a change in what else the machine does meets both. Prints a Markdown table, then one JSON line.
"""

import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve()
CONTEXT_MARGIN = 64


class Peer:
  """llama.cpp through its C interface, with one model and one sequence."""

  def __init__(self, path, threads, context):
    import llama_cpp
    import numpy
    self.llama, self.numpy = llama_cpp, numpy
    llama_cpp.llama_backend_init()
    parameters = llama_cpp.llama_model_default_params()
    parameters.n_gpu_layers = 0
    self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
    if not self.model:
      sys.exit(f"{path}: llama.cpp cannot load it")
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx, parameters.n_batch, parameters.n_ubatch = context, 512, 512
    parameters.n_threads = parameters.n_threads_batch = threads
    self.context = llama_cpp.llama_init_from_model(self.model, parameters)
    self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

  def clear(self):
    self.llama.llama_memory_clear(self.llama.llama_get_memory(self.context), True)

  def read(self, tokens):
    """Appends `tokens` in batches of 512; returns the token most likely to follow."""
    for start in range(0, len(tokens), 512):
      part = tokens[start:start + 512]
      array = (self.llama.llama_token * len(part))(*part)
      status = self.llama.llama_decode(self.context, self.llama.llama_batch_get_one(array, len(part)))
      if status != 0:
        sys.exit(f"llama_decode: expected 0, found {status}")
    logits = self.llama.llama_get_logits_ith(self.context, -1)
    return int(self.numpy.argmax(self.numpy.ctypeslib.as_array(logits, (self.vocabulary,))))

  def tokens(self, count, seed):
    return random.Random(seed).choices(range(self.vocabulary), k=count)

  def prefill(self, count, seed):
    """Tokens per second."""
    tokens = self.tokens(count, seed)
    self.clear()
    start = time.perf_counter()
    self.read(tokens)
    return count / (time.perf_counter() - start)

  def decode(self, count, seed):
    """Tokens per second."""
    self.clear()
    token = self.read(self.tokens(1, seed))
    start = time.perf_counter()
    for _ in range(count):
      token = self.read([token])
    return count / (time.perf_counter() - start)


def run_worker(options):
  """One sample of llama.cpp, as JSON; this is what the child process does."""
  context = max(options.prompt_tokens, options.generate_tokens) + CONTEXT_MARGIN
  peer = Peer(options.model, options.threads, context)
  if options.worker == "prefill":
    measure, count = peer.prefill, options.prompt_tokens
  else:
    measure, count = peer.decode, options.generate_tokens
  measure(count, seed=0)
  print(json.dumps({
    "tokens_per_second": measure(count, seed=1), "version": peer.llama.__version__,
    "features": peer.llama.llama_print_system_info().decode()}))


def last_json(command):
  """Runs `command` and parses the last line of its standard output."""
  done = subprocess.run(command, capture_output=True, text=True)
  if done.returncode != 0:
    sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stderr.strip()[-2000:]}")
  return json.loads(done.stdout.strip().splitlines()[-1])


def sample_peer(options, work):
  return last_json([
    sys.executable, HERE, options.model, "--worker", work, "--threads", str(options.threads),
    "--prompt-tokens", str(options.prompt_tokens), "--generate-tokens", str(options.generate_tokens)])


def sample_kindred(options, work):
  # `kindred bench` takes the first token from the prompt, so n steps are n + 1 tokens.
  shape = {
    "prefill": (options.prompt_tokens, 2), "decode": (1, options.generate_tokens + 1)}[work]
  result = last_json([
    options.kindred, "bench", "-m", options.model, "--threads", str(options.threads), "--kv-type", "f16",
    "--prompt-tokens", str(shape[0]), "--generate-tokens", str(shape[1]), "--repeat", "1", "--json"])
  return {"tokens_per_second": result[f"{work}_tokens_per_second"], "isa": result.get("isa")}


def summary(samples):
  values = [sample["tokens_per_second"] for sample in samples]
  return {"median": statistics.median(values), "min": min(values), "max": max(values), "values": values}


def busy_share():
  """The share of all processors' time that other programs take, measured over one second (Linux)."""
  def times():
    fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    return sum(fields[:8]), fields[3] + fields[4]
  before = times()
  time.sleep(1)
  total, idle = (after - start for after, start in zip(times(), before))
  return 1 - idle / total


def compare(options):
  busy = busy_share()
  if busy > 0.1:
    # llama.cpp's threads wait for each other by spinning: one busy core can cost it a factor of ten.
    print(f"other programs use {busy:.0%} of the processors: the figures will mean nothing", file=sys.stderr)
  samples = {(engine, work): [] for work in ["prefill", "decode"] for engine in ["kindred", "llama.cpp"]}
  for repetition in range(options.repeat):
    for engine, work in samples:
      print(f"{repetition + 1}/{options.repeat} {work}: {engine}", file=sys.stderr)
      sample = sample_kindred if engine == "kindred" else sample_peer
      samples[engine, work].append(sample(options, work))
  peer = samples["llama.cpp", "prefill"][0]
  result = {
    "model": pathlib.Path(options.model).name, "threads": options.threads, "repeat": options.repeat,
    "llama_cpp_python": peer["version"], "llama_cpp_features": peer["features"].strip(" |"),
    "kindred_isa": samples["kindred", "prefill"][0]["isa"], "busy_before": round(busy, 3)}
  counts = {"prefill": options.prompt_tokens, "decode": options.generate_tokens}
  for work, count in counts.items():
    ours, theirs = (summary(samples[engine, work]) for engine in ["kindred", "llama.cpp"])
    result[work] = {
      "tokens": count, "kindred": ours, "llama_cpp": theirs, "ratio": ours["median"] / theirs["median"]}
  return result


def table(result):
  cell = lambda x: f"{x['median']:.1f} ({x['min']:.1f}–{x['max']:.1f})"
  lines = [
    f"{result['model']}, {result['threads']} threads, medians of {result['repeat']} (min–max), tokens/s; "
    f"llama.cpp of llama-cpp-python {result['llama_cpp_python']}", "",
    "| work | kindred | llama.cpp | ratio |", "|---|---|---|---|"]
  for work, name in [("prefill", "prefill of {}"), ("decode", "decode of {} at depth 0")]:
    row = result[work]
    cells = [name.format(row["tokens"]), cell(row["kindred"]), cell(row["llama_cpp"]), f"{row['ratio']:.2f}"]
    lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines)


def main():
  parser = argparse.ArgumentParser(prog="peer.sh", description=__doc__.split("\n\n")[0])
  parser.add_argument("model", help="GGUF file")
  parser.add_argument("--kindred", default=HERE.parents[2] / ".build/release/kindred", help="its executable")
  parser.add_argument("--threads", type=int, default=os.cpu_count())
  parser.add_argument("--prompt-tokens", type=int, default=512)
  parser.add_argument("--generate-tokens", type=int, default=64)
  parser.add_argument("--repeat", type=int, default=5)
  parser.add_argument("--worker", choices=["prefill", "decode"], help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.worker:
    return run_worker(options)
  for path in [options.model, options.kindred]:
    if not pathlib.Path(path).is_file():
      sys.exit(f"{path}: expected a file, found none")
  result = compare(options)
  print(table(result))
  print(json.dumps(result))


if __name__ == "__main__":
  main()
