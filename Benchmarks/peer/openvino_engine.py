"""OpenVINO GenAI's `LLMPipeline` on a GGUF file, fed with token ids. Its KV cache is set to F16, as the others'
(by default it stores 8 bits); all else is left as it comes.

Takes one sample: load, one unmeasured repetition of the same shape (its kernels are made for a shape when they
first meet it), one measured. Times are those that the pipeline reports. Every token is the most likely one.
"""

import time

import numpy
import openvino
import openvino_genai

import worker


def run(pipeline, prompts, steps):
  """What the pipeline reports of reading the prompts and generating `steps` tokens after the first."""
  config = openvino_genai.GenerationConfig()
  config.max_new_tokens, config.ignore_eos = steps + 1, True
  inputs = openvino_genai.TokenizedInputs(
    openvino.Tensor(prompts), openvino.Tensor(numpy.ones(prompts.shape, numpy.int64)))
  result = pipeline.generate(inputs, config)
  lengths = {len(tokens) for tokens in result.tokens}
  if lengths != {steps + 1}:
    raise SystemExit(f"OpenVINO GenAI: expected {steps + 1} tokens, found {lengths}")
  return result.perf_metrics


def measure(work, settings):
  start = time.perf_counter()
  pipeline = openvino_genai.LLMPipeline(
    work["model"], "CPU", INFERENCE_NUM_THREADS=work["threads"], KV_CACHE_PRECISION=openvino.Type.f16,
    ATTENTION_BACKEND=settings["attention"])
  load = time.perf_counter() - start
  vocabulary = len(pipeline.get_tokenizer().get_vocab())
  run(pipeline, worker.random_prompts(work, vocabulary, seed=0), min(work["generate"], 8))
  metrics = run(pipeline, worker.random_prompts(work, vocabulary, seed=1), work["generate"])
  return {
    "prefill": work["sequences"] * work["prompt"] / metrics.get_ttft().mean * 1000,
    # Its time per token counts the tokens of all sequences.
    "decode": 1000 / metrics.get_tpot().mean, "load": load,
    "peak_rss_mb": worker.peak_rss_mb(), "version": f"openvino-genai {openvino_genai.__version__}"}


if __name__ == "__main__":
  worker.serve(measure)
