"""Measures Kindred against llama.cpp and OpenVINO GenAI on the paths that a user feels (`rows.py`).

Same file, same threads, KV cache in F16, random prompts, every token the most likely one. Every sample is a
process of its own, which works once unmeasured and once measured. The engines take turns, so that a change in
what else the machine does meets all of them. Where a peer can be set up in several ways, the first repetition
tries all of them and the others keep the fastest for each figure. Prints a Markdown table, then one JSON line.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

import engines
import environments
import report
import rows

HERE = pathlib.Path(__file__).resolve().parent
TEXT = HERE.parents[2] / "shared/data/wikitext2/wiki.test.raw"
HOME = pathlib.Path(os.environ.get("KINDRED_HOME") or pathlib.Path.home() / ".cache/kindred")
FOLDERS = {"1.5b": "qwen2.5-coder-1.5b", "0.5b": "qwen2.5-coder-0.5b", "smollm2": "smollm2-135m"}
BF16_FOLDER = HOME / "benchmarks/qwen2.5-coder-1.5b-bf16"
QUICK_PROMPT, QUICK_GENERATE = 64, 8
# What a sample says of the engine itself.
ABOUT = ["version", "features", "weights_and_kv_mb", "tokens"]
ISA_FLAGS = ["avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"]


def model_path(model, kindred):
  """The GGUF file of a model of `rows.py`, fetched if need be."""
  folder = HOME / "models" / FOLDERS[model]
  if not list(folder.glob("*.gguf")):
    subprocess.run([kindred, "fetch", FOLDERS[model]], stdout=sys.stderr, check=True)
  return str(next(folder.glob("*.gguf")))


def bf16_folder(kindred):
  """The 1.5B in BF16, made if need be."""
  if not (BF16_FOLDER / "streamed.json").exists():
    print(f"writing {BF16_FOLDER} (7 GB)", file=sys.stderr)
    script = [environments.GGUF.python, HERE / "bf16_model.py", model_path("1.5b", kindred), BF16_FOLDER]
    subprocess.run(script, check=True)
  return BF16_FOLDER


@dataclasses.dataclass
class Samples:
  """What one engine gave in one run."""
  engine: object
  # Pairs of settings and sample.
  taken: list = dataclasses.field(default_factory=list)
  failure: str | None = None

  def best_settings(self, metric):
    """The fastest settings of the first repetition. Load and memory are those of the fastest prefill."""
    key = "prefill" if metric in ("load", "peak_rss_mb") else metric
    first = self.taken[:len(self.engine.settings)]
    return max(first, key=lambda pair: pair[1].get(key, 0))[0]

  def next_settings(self, metrics):
    """The settings to measure next: all at first, then those that are best at something."""
    if not self.taken:
      return self.engine.settings
    best = [self.best_settings(metric) for metric in metrics]
    return [settings for settings in self.engine.settings if settings in best]

  def figure(self, metric):
    """Median and range of a metric; `None` where the engine does not give it."""
    if self.failure or metric not in self.taken[0][1]:
      return None
    settings = self.best_settings(metric)
    samples = [sample for used, sample in self.taken if used == settings]
    values = [sample[metric] for sample in samples]
    return {
      "median": statistics.median(values), "min": min(values), "max": max(values), "values": values,
      "others": max(sample["others"] for sample in samples), "settings": settings,
      "about": {key: samples[0][key] for key in ABOUT if key in samples[0]}}


class Comparison:
  """Does runs and makes rows of them."""

  def __init__(self, options):
    self.options = options
    self.engines = {
      "kindred": engines.Kindred(options.kindred), "llama.cpp": engines.LLAMA_CPP, "openvino": engines.OPENVINO,
      "kindred-avx2": engines.Kindred(options.kindred, instruction_set="avx2"),
      "llama.cpp-avx2": engines.LLAMA_CPP_AVX2, "memory": engines.MEMORY,
      "kindred-tokenizer": engines.KindredTokenizer(), "tokenizers": engines.TOKENIZERS}

  def work(self, run, engine):
    if run.model == "bf16":
      folder = bf16_folder(self.options.kindred)
      model = str(folder / "model.gguf" if isinstance(engine, engines.Peer) else folder)
    else:
      model = model_path(run.model, self.options.kindred)
    prompt, generate = run.prompt, run.generate
    if self.options.quick:
      prompt, generate = min(prompt, QUICK_PROMPT), min(generate, QUICK_GENERATE)
    return engines.Work(
      model, self.options.threads, prompt, generate, run.sequences, text=str(TEXT) if run.text else None)

  def do(self, name, metrics):
    """All repetitions of a run; returns the samples of each engine."""
    run = rows.RUNS[name]
    results = [Samples(self.chosen(self.engines[engine])) for engine in run.engines]
    for repetition in range(self.options.repeat):
      for samples in results:
        if not samples.failure:
          self.repeat(run, samples, metrics, f"{name} {repetition + 1}/{self.options.repeat}")
    return results

  def chosen(self, engine):
    if self.options.quick and isinstance(engine, engines.Peer):
      return dataclasses.replace(engine, settings=engine.settings[:1])
    return engine

  def repeat(self, run, samples, metrics, label):
    """One repetition of one engine."""
    for settings in samples.next_settings(metrics):
      print(f"{label}: {samples.engine.column} {settings or ''}", file=sys.stderr, flush=True)
      try:
        sample = samples.engine.sample(self.work(run, samples.engine), settings)
      except (engines.EngineFailure, subprocess.CalledProcessError) as failure:
        samples.failure = str(failure)
        print(failure, file=sys.stderr)
        return
      if run.model == "bf16" and "decode" in sample:
        streamed = json.loads((BF16_FOLDER / "streamed.json").read_text())["bytes_per_token"]
        sample["bandwidth"] = sample["decode"] * streamed / 1e9
      samples.taken.append((settings, sample))

  def row(self, row, results):
    """One row of the report."""
    figures = {result.engine.column: result.figure(row.metric) for result in results}
    figures = {column: figure for column, figure in figures.items() if figure}
    if row.ik_ratio and "llama.cpp" in figures:
      figures[report.IK] = {"median": row.ik_ratio * figures["llama.cpp"]["median"], "scaled": True}
    ours = figures.get("Kindred", {}).get("median")
    return {
      "row": row.name, "title": row.title, "unit": row.unit, "engines": figures,
      "ratios": {column: ours / other["median"] for column, other in figures.items() if ours and column != "Kindred"},
      "targets": [verdict for verdict in (target.check(figures) for target in row.targets) if verdict],
      "failures": {result.engine.column: result.failure for result in results if result.failure}}


def conditions(options):
  """What a reader must know about the machine and the programs."""
  processor = pathlib.Path("/proc/cpuinfo").read_text()
  field = lambda name: processor.split(f"{name}\t")[1].split(":", 1)[1].split("\n")[0].strip()
  flags = set(field("flags").split()) if "flags\t" in processor else set()
  revision = subprocess.run(
    ["git", "-C", HERE, "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
  return {
    "processor": field("model name") if "model name\t" in processor else platform.machine(),
    "processors": os.cpu_count(), "isa": [flag for flag in ISA_FLAGS if flag in flags], "threads": options.threads,
    "repeat": options.repeat, "quick": options.quick, "kernel": platform.release(), "kindred": revision}


def wanted_rows(only):
  if only is None:
    return rows.ROWS
  names = only.split(",")
  unknown = sorted(set(names) - {row.name for row in rows.ROWS})
  if unknown:
    sys.exit(f"--only: expected names of {', '.join(row.name for row in rows.ROWS)}; found {', '.join(unknown)}")
  return [row for row in rows.ROWS if row.name in names]


def compare(options):
  """Does the runs that the wanted rows need, in the order of `rows.RUNS`; writes the JSON file after each."""
  wanted = wanted_rows(options.only)
  comparison, found = Comparison(options), {}
  result = {"conditions": conditions(options), "rows": []}
  for name in rows.RUNS:
    of_run = [row for row in wanted if row.run == name]
    if not of_run:
      continue
    if rows.RUNS[name].text and not TEXT.exists():
      print(f"no tokenising: expected {TEXT}, found none", file=sys.stderr)
      continue
    samples = comparison.do(name, [row.metric for row in of_run])
    found |= {row.name: comparison.row(row, samples) for row in of_run}
    result["rows"] = [found[row.name] for row in wanted if row.name in found]
    if options.json:
      pathlib.Path(options.json).write_text(json.dumps(result, indent=1))
  return result


def main():
  parser = argparse.ArgumentParser(prog="peer.sh", description=__doc__.split("\n\n")[0])
  parser.add_argument("--only", metavar="ROW,…", help="rows to measure; a wrong name prints the right ones")
  parser.add_argument("--repeat", type=int, default=5, help="measured repetitions (default: 5)")
  parser.add_argument("--quick", action="store_true", help=(
    f"see that it works: one repetition, at most {QUICK_PROMPT} + {QUICK_GENERATE} tokens, one setting of each peer"))
  parser.add_argument("--threads", type=int, default=os.cpu_count())
  parser.add_argument("--json", metavar="FILE", help="write the result there too, after every run")
  parser.add_argument("--kindred", default=HERE.parents[1] / ".build/release/kindred", help="its executable")
  options = parser.parse_args()
  if options.repeat < 1 or options.threads < 1:
    parser.error("--repeat and --threads: expected at least 1")
  if not pathlib.Path(options.kindred).is_file():
    sys.exit(f"{options.kindred}: expected the executable that `make build` makes, found none")
  if options.quick:
    options.repeat = 1
  result = compare(options)
  print(report.markdown(result))
  print(json.dumps(result))


if __name__ == "__main__":
  main()
