"""Writes a tiny `transformers` model as a GGUF file, as llama.cpp's converter would.

Tensor names come from the `gguf` package's own table. Two things differ between the formats: `llama` files
hold Q and K with rows permuted for interleaved RoPE, and Llama 3's RoPE scaling is a tensor of divisors.
"""

import math

import gguf
import numpy as np

ARCHITECTURES = {"qwen2": gguf.MODEL_ARCH.QWEN2, "llama": gguf.MODEL_ARCH.LLAMA}


def interleave(rows, heads):
  """From half-split RoPE (first half with second half) to interleaved (even with odd), head by head."""
  pairs = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
  return pairs.swapaxes(1, 2).reshape(rows.shape)


def half_split(rows, heads):
  """The inverse of `interleave`."""
  pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
  return pairs.swapaxes(1, 2).reshape(rows.shape)


def rope_divisors(scaling, theta, head_dim):
  """Llama 3.1's scaling as one divisor per frequency, `[head_dim / 2]`."""
  original = scaling["original_max_position_embeddings"]
  low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
  divisors = []
  for index in range(head_dim // 2):
    turns = original / (2 * math.pi * theta ** (2 * index / head_dim))
    share = min(max((turns - low) / (high - low), 0), 1)
    divisors.append(1 / ((1 - share) / scaling["factor"] + share))
  return np.array(divisors, dtype=np.float32)


def add_hyperparameters(writer, config):
  writer.add_context_length(config["max_position_embeddings"])
  writer.add_embedding_length(config["hidden_size"])
  writer.add_block_count(config["num_hidden_layers"])
  writer.add_feed_forward_length(config["intermediate_size"])
  writer.add_head_count(config["num_attention_heads"])
  writer.add_head_count_kv(config["num_key_value_heads"])
  writer.add_rope_freq_base(config["rope_theta"])
  writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
  writer.add_vocab_size(config["vocab_size"])
  # A file without a tokenizer; llama.cpp knows this value too.
  writer.add_tokenizer_model("no_vocab")


def write(path, config, weights, types=None):
  """Writes `weights` (Hugging Face names, arrays of F32) with the published `config` to `path`.

  `types` gives the quantisation of a GGUF tensor name, or `None` for F32. Returns the weights as a reader of
  the file sees them, dequantised, under their Hugging Face names and in Hugging Face's row order.
  """
  family = config["model_type"]
  names = gguf.get_tensor_name_map(ARCHITECTURES[family], config["num_hidden_layers"])
  writer = gguf.GGUFWriter(path, family)
  add_hyperparameters(writer, config)
  head_dim = config["hidden_size"] // config["num_attention_heads"]
  if family == "llama":
    writer.add_rope_dimension_count(head_dim)
  if config.get("rope_scaling"):
    divisors = rope_divisors(config["rope_scaling"], config["rope_theta"], head_dim)
    writer.add_tensor("rope_freqs.weight", divisors)
  read = {}
  for name, values in weights.items():
    gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
    quantization = types(gguf_name) if types and values.ndim == 2 else None
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    projection = next((part for part in name.split(".") if part in heads), None)
    if family == "llama" and projection:
      values = interleave(values, heads[projection])
    if quantization is None:
      writer.add_tensor(gguf_name, values)
      continue
    assert family != "llama" or not projection, "the row order of dequantised Q and K is not undone here"
    blocks = gguf.quants.quantize(values, quantization)
    writer.add_tensor(gguf_name, blocks, raw_dtype=quantization)
    read[name] = gguf.quants.dequantize(blocks, quantization)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return weights | read
