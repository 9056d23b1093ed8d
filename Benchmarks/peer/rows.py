"""The paths that a user feels, as runs to do and rows to report, with the target of each."""

import dataclasses
import typing


@dataclasses.dataclass(frozen=True)
class Run:
  """One piece of work, given to every engine in turn. Several rows can come from it."""
  model: str
  prompt: int
  generate: int
  engines: tuple
  sequences: int = 1
  # Whether to tokenise the text instead.
  text: bool = False


NATIVE = ("kindred", "llama.cpp", "openvino")
# OpenVINO GenAI does not load the 0.5B.
TWO = ("kindred", "llama.cpp")
AVX2 = ("kindred-avx2", "llama.cpp-avx2")

RUNS = {
  "1.5b-32": Run("1.5b", 32, 16, NATIVE),
  "1.5b-100": Run("1.5b", 100, 16, NATIVE),
  "1.5b-512": Run("1.5b", 512, 16, NATIVE),
  "1.5b-0": Run("1.5b", 1, 64, NATIVE),
  "1.5b-4096": Run("1.5b", 4096, 64, NATIVE),
  "1.5b-8192": Run("1.5b", 8192, 64, NATIVE),
  "0.5b-512": Run("0.5b", 512, 16, TWO),
  "0.5b-0": Run("0.5b", 1, 64, TWO),
  "smollm2-512": Run("smollm2", 512, 16, TWO),
  "smollm2-0": Run("smollm2", 1, 64, TWO),
  "1.5b-batch": Run("1.5b", 256, 64, NATIVE, sequences=16),
  "bf16-0": Run("bf16", 1, 64, TWO + ("memory",)),
  "avx2-512": Run("1.5b", 512, 16, AVX2),
  "avx2-0": Run("1.5b", 1, 64, AVX2),
  "text": Run("bf16", 0, 0, ("kindred-tokenizer", "tokenizers"), text=True),
}


@dataclasses.dataclass(frozen=True)
class AtLeast:
  """A multiple of a peer's figure, or of the best peer's."""
  factor: float
  than: str

  def check(self, figures):
    """What is reached, or `None` where the peer has no figure."""
    medians = {column: figure["median"] for column, figure in figures.items()}
    ours = medians.pop("Kindred", None)
    reference = max(medians.values(), default=None) if self.than == "best" else medians.get(self.than)
    if reference is None or ours is None:
      return None
    return {
      "target": f"≥ {self.factor} × {self.than} ({reference:,.4g})", "found": ours / reference,
      "reached": ours / reference >= self.factor}


@dataclasses.dataclass(frozen=True)
class AtMost:
  """A bound, which may depend on what Kindred says of itself."""
  bound: typing.Callable

  def check(self, figures):
    if "Kindred" not in figures:
      return None
    found, bound = figures["Kindred"]["median"], self.bound(figures["Kindred"]["about"])
    return {"target": f"≤ {bound:,.4g}", "found": found, "reached": found <= bound}


@dataclasses.dataclass(frozen=True)
class Row:
  name: str
  title: str
  run: str
  # The key of the engines' samples.
  metric: str
  targets: tuple
  unit: str = "tok/s"
  # ik_llama.cpp's figure over llama.cpp's on the machine where both were measured (2 cores of Zen 5).
  ik_ratio: float | None = None


ROWS = [
  Row("1.5b-prefill-32", "1.5B Q4_K_M, prefill 32", "1.5b-32", "prefill", (AtLeast(1.2, "llama.cpp"),)),
  Row("1.5b-prefill-100", "1.5B Q4_K_M, prefill 100", "1.5b-100", "prefill", (AtLeast(1.2, "llama.cpp"),)),
  Row("1.5b-prefill-512", "1.5B Q4_K_M, prefill 512", "1.5b-512", "prefill",
      (AtLeast(2.5, "llama.cpp"), AtLeast(1.3, "best")), ik_ratio=294 / 180.5),
  Row("1.5b-prefill-8192", "1.5B Q4_K_M, prefill 8192", "1.5b-8192", "prefill",
      (AtLeast(3.2, "llama.cpp"), AtLeast(1.1, "best")), ik_ratio=187 / 100),
  Row("1.5b-decode-0", "1.5B Q4_K_M, decode 64 at depth 0", "1.5b-0", "decode",
      (AtLeast(1.7, "best"),), ik_ratio=38 / 40),
  Row("1.5b-decode-4096", "1.5B Q4_K_M, decode 64 at depth 4096", "1.5b-4096", "decode", (AtLeast(2.5, "best"),)),
  Row("1.5b-decode-8192", "1.5B Q4_K_M, decode 64 at depth 8192", "1.5b-8192", "decode",
      (AtLeast(3, "best"),), ik_ratio=20 / 19),
  Row("0.5b-prefill-512", "0.5B Q4_K_M, prefill 512", "0.5b-512", "prefill",
      (AtLeast(3, "llama.cpp"), AtLeast(1.2, "best")), ik_ratio=864 / 348),
  Row("0.5b-decode-0", "0.5B Q4_K_M, decode 64 at depth 0", "0.5b-0", "decode",
      (AtLeast(2, "llama.cpp"), AtLeast(1.4, "best")), ik_ratio=104 / 70),
  Row("smollm2-prefill-512", "SmolLM2 135M Q4_1, prefill 512", "smollm2-512", "prefill",
      (AtLeast(1.2, "best"),), ik_ratio=2407 / 496),
  Row("smollm2-decode-0", "SmolLM2 135M Q4_1, decode 64 at depth 0", "smollm2-0", "decode",
      (AtLeast(1.2, "best"),), ik_ratio=277 / 196),
  Row("1.5b-batch-16", "1.5B Q4_K_M, 16 sequences decoded together, depth 256", "1.5b-batch", "decode",
      (AtLeast(2, "llama.cpp"),)),
  Row("bf16-decode-0", "1.5B BF16, decode 64 at depth 0", "bf16-0", "decode", (AtLeast(1.2, "llama.cpp"),)),
  Row("bf16-bandwidth", "1.5B BF16, weights read while decoding", "bf16-0", "bandwidth",
      (AtLeast(0.85, "memory"),), unit="GB/s"),
  Row("1.5b-load", "1.5B Q4_K_M, load, page cache warm", "1.5b-512", "load",
      (AtMost(lambda about: 1.5),), unit="s"),
  Row("1.5b-memory", "1.5B Q4_K_M, peak resident memory, 512 + 17 tokens", "1.5b-512", "peak_rss_mb",
      (AtMost(lambda about: 1.15 * about["weights_and_kv_mb"] + 150),), unit="MB"),
  Row("avx2-prefill-512", "1.5B Q4_K_M, AVX2 only, prefill 512", "avx2-512", "prefill",
      (AtLeast(1.2, "llama.cpp"),)),
  Row("avx2-decode-0", "1.5B Q4_K_M, AVX2 only, decode 64 at depth 0", "avx2-0", "decode",
      (AtLeast(1.2, "llama.cpp"),)),
  Row("tokenize", "tokenising wiki.test.raw, Qwen2, one thread", "text", "tokenize",
      (AtLeast(3, "tokenizers"),), unit="MB/s"),
]
