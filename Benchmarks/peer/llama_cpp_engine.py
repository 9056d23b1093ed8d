"""llama.cpp through its C interface, as its `llama-bench` and `llama-batched-bench` use it: micro-batches of 512,
KV cache in F16, one stream of the cache for each sequence, weights repacked unless the settings say otherwise.

Takes one sample: load, one repetition with a short prompt unmeasured, one measured. Every token is the most
likely one.
"""

import time

import llama_cpp
import numpy

import worker

BATCH = 512
# Tokens of the unmeasured prompt. Longer ones run through the same micro-batches.
WARM_UP = 512


class Model:
  def __init__(self, work, settings):
    llama_cpp.llama_backend_init()
    parameters = llama_cpp.llama_model_default_params()
    parameters.n_gpu_layers = 0
    parameters.use_extra_bufts = settings["repack"]
    self.model = llama_cpp.llama_model_load_from_file(work["model"].encode(), parameters)
    if not self.model:
      raise SystemExit(f"{work['model']}: llama.cpp cannot load it")
    self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
    self.context = self.make_context(work, settings)
    self.batch = llama_cpp.llama_batch_init(BATCH, 0, 1)

  def make_context(self, work, settings):
    parameters = llama_cpp.llama_context_default_params()
    length = -(-(work["prompt"] + work["generate"] + 1) // 256) * 256
    parameters.n_ctx, parameters.n_seq_max = length * work["sequences"], work["sequences"]
    parameters.kv_unified = False
    parameters.n_batch = parameters.n_ubatch = BATCH
    parameters.n_threads = parameters.n_threads_batch = work["threads"]
    parameters.flash_attn_type = int(settings["flash"])
    context = llama_cpp.llama_init_from_model(self.model, parameters)
    if not context:
      raise SystemExit(f"{work['model']}: llama.cpp makes no context of {parameters.n_ctx} tokens")
    return context

  def clear(self):
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

  def evaluate(self, rows):
    """Runs rows (token, sequence, position, whether logits are wanted); returns the most likely next tokens."""
    for i, (token, sequence, position, wants_logits) in enumerate(rows):
      self.batch.token[i], self.batch.pos[i], self.batch.logits[i] = token, position, wants_logits
      self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, sequence
    self.batch.n_tokens = len(rows)
    status = llama_cpp.llama_decode(self.context, self.batch)
    if status != 0:
      raise SystemExit(f"llama_decode: expected 0, found {status}")
    return [self.most_likely(i) for i, row in enumerate(rows) if row[3]]

  def most_likely(self, row):
    logits = llama_cpp.llama_get_logits_ith(self.context, row)
    return int(numpy.argmax(numpy.ctypeslib.as_array(logits, (self.vocabulary,))))

  def read(self, prompt, sequence):
    """Reads a prompt into an empty sequence; returns the token that follows."""
    rows = [(token, sequence, i, i + 1 == len(prompt)) for i, token in enumerate(prompt)]
    for start in range(0, len(rows), BATCH):
      following = self.evaluate(rows[start:start + BATCH])
    return following[0]

  def run(self, prompts, steps):
    """Seconds that the prompts take, and seconds of the steps after them."""
    self.clear()
    start = time.perf_counter()
    tokens = [self.read(prompt, sequence) for sequence, prompt in enumerate(prompts)]
    middle = time.perf_counter()
    for position in range(len(prompts[0]), len(prompts[0]) + steps):
      tokens = self.evaluate([(token, sequence, position, True) for sequence, token in enumerate(tokens)])
    return middle - start, time.perf_counter() - middle


def measure(work, settings):
  start = time.perf_counter()
  model = Model(work, settings)
  load = time.perf_counter() - start
  short = work | {"prompt": min(work["prompt"], WARM_UP)}
  model.run(worker.random_prompts(short, model.vocabulary, seed=0).tolist(), min(work["generate"], 8))
  prompts = worker.random_prompts(work, model.vocabulary, seed=1).tolist()
  prefill, decode = model.run(prompts, work["generate"])
  return {
    "prefill": work["sequences"] * work["prompt"] / prefill,
    "decode": work["sequences"] * work["generate"] / decode, "load": load, "peak_rss_mb": worker.peak_rss_mb(),
    "version": f"llama-cpp-python {llama_cpp.__version__}",
    "features": llama_cpp.llama_print_system_info().decode().strip(" |")}


if __name__ == "__main__":
  worker.serve(measure)
