"""Makes `Fixtures/`: tiny random models of each family with the logits that PyPI `transformers` gives for
them.

Run: `python3 Tests/TransformerTests/make_fixtures.py` with torch, transformers, safetensors, tokenizers and
gguf installed; `Fixtures/versions.json` names the versions that made the committed files.

Each `Fixtures/<name>/` is a Hugging Face folder, or holds `model.gguf`, and has an `expected.json`: `tokens`
(ids), `vocabulary`, and `logits`, base64 of little-endian F32 `[tokens, vocabulary]`, computed in F32 from
the weights as stored (for BF16, F16 and quantised files: after widening).

Checked besides: llama.cpp (PyPI `llama-cpp-python` 0.3.36, F32 cache) gives the logits of both F32 GGUF files
to 3e-6, and those of `qwen2-quantized`, where it rounds activations to 8 bits, to 0.07.
"""

import pathlib
import sys
import tempfile

import safetensors.torch
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import tiny_gguf
from gguf import GGMLQuantizationType as Quantization
from tiny_models import (
  encode, fresh_folder, llama, load_folder, logits, qwen2, random_tokens, versions, write_folder, write_json)

FIXTURES = pathlib.Path(__file__).parent / "Fixtures"

LLAMA3_SCALING = {
  "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
  "original_max_position_embeddings": 32}

# name: (configuration, tokens, storage)
MODELS = {
  "qwen2": (qwen2(), 40, {}),
  "qwen2-tied": (qwen2(hidden_size=48, num_attention_heads=6, tie_word_embeddings=True), 24, {}),
  # As transformers 5 writes it: `rope_parameters` and `dtype`. Head dim 12 is not 32 / 4.
  "qwen3": ({
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu",
    "attention_bias": False, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12,
    "vocab_size": 97, "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6, "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"},
    "sliding_window": None, "use_sliding_window": False, "max_window_layers": 2,
    "layer_types": ["full_attention"] * 2, "tie_word_embeddings": True, "dtype": "float32"}, 40, {}),
  "llama": (llama(), 40, {}),
  # Wavelengths fall on both sides of, and between, the two bounds 8 and 32.
  "llama3": (llama(
    num_attention_heads=2, num_key_value_heads=1, intermediate_size=40, rope_scaling=LLAMA3_SCALING,
    tie_word_embeddings=False), 72, {}),
  "smollm2": (llama(
    hidden_size=36, num_attention_heads=9, num_key_value_heads=3, intermediate_size=56, rope_theta=100000.0,
    rope_interleaved=False, is_llama_config=True), 40, {}),
  "mistral": (llama(
    architectures=["MistralForCausalLM"], model_type="mistral", num_key_value_heads=2, sliding_window=None,
    head_dim=8, rope_theta=1000000.0, tie_word_embeddings=False), 24, {"shard_bytes": 40_000}),
  "odd-sizes": (llama(
    hidden_size=40, num_attention_heads=5, num_key_value_heads=1, intermediate_size=72,
    vocab_size=103), 33, {}),
  "qwen2-bf16": (qwen2(torch_dtype="bfloat16"), 24, {"dtype": torch.bfloat16}),
  "llama-f16": (llama(torch_dtype="float16"), 24, {"dtype": torch.float16}),
}


def write_expected(folder, tokens, values):
  write_json(folder / "expected.json", {
    "tokens": tokens, "vocabulary": values.shape[1], "logits": encode(values.numpy())})


def write_gguf_twin(name):
  """`<name>-gguf`: the same F32 weights as GGUF, so the same logits."""
  config = MODELS[name][0]
  folder = fresh_folder(FIXTURES / f"{name}-gguf")
  weights = safetensors.torch.load_file(FIXTURES / name / "model.safetensors")
  tiny_gguf.write(folder / "model.gguf", config, {key: tensor.numpy() for key, tensor in weights.items()})
  (folder / "expected.json").write_text((FIXTURES / name / "expected.json").read_text())


def quantization(name):
  """Every block type that the `gguf` package can write and that has blocks of 32."""
  kinds = {
    "attn_q": Quantization.Q8_0, "attn_k": Quantization.Q5_1, "attn_v": Quantization.Q5_0,
    "attn_output": Quantization.Q4_1, "ffn_gate": Quantization.Q4_0, "ffn_up": Quantization.Q4_0}
  return next((kind for part, kind in kinds.items() if part in name.split(".")), Quantization.Q8_0)


def write_quantized(scratch):
  """`qwen2-quantized`: expected logits from the dequantised weights."""
  config = qwen2(hidden_size=64, num_attention_heads=4, intermediate_size=96, vocab_size=100)
  model = write_folder(scratch, config, seed=90)
  folder = fresh_folder(FIXTURES / "qwen2-quantized")
  weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
  read = tiny_gguf.write(folder / "model.gguf", config, weights, types=quantization)
  model.load_state_dict({name: torch.from_numpy(values.copy()) for name, values in read.items()})
  tokens = random_tokens(40, config["vocab_size"], seed=91)
  write_expected(folder, tokens, logits(model, tokens))


def check_scaling_matters(tokens, values, scratch):
  """The Llama 3 fixture is of use only if plain RoPE would fail it."""
  config = MODELS["llama3"][0]
  weights = safetensors.torch.load_file(FIXTURES / "llama3" / "model.safetensors")
  write_folder(scratch, config | {"rope_scaling": None}, seed=0)
  safetensors.torch.save_file(weights, scratch / "model.safetensors", metadata={"format": "pt"})
  difference = (logits(load_folder(scratch), tokens) - values).abs().max().item()
  assert difference > 0.1, difference


def main():
  fresh_folder(FIXTURES)
  with tempfile.TemporaryDirectory() as scratch:
    scratch = pathlib.Path(scratch) / "model"
    for seed, (name, (config, count, storage)) in enumerate(MODELS.items()):
      model = write_folder(FIXTURES / name, config, seed=seed, **storage)
      tokens = random_tokens(count, config["vocab_size"], seed=100 + seed)
      values = logits(model, tokens)
      write_expected(FIXTURES / name, tokens, values)
      print(f"{name}: logits within ±{values.abs().max():.2f}, deviation {values.std():.2f}")
      if name == "llama3":
        check_scaling_matters(tokens, values, scratch)
    for name in ["qwen2", "llama3"]:
      write_gguf_twin(name)
    write_quantized(scratch)
  write_json(FIXTURES / "versions.json", versions())


if __name__ == "__main__":
  main()
