"""Tiny random models for the golden tests: published configuration keys, seeded weights, reference logits.

The fixture scripts of several test folders share this module. The reference is PyPI `transformers` with eager
attention and F32 arithmetic, run on the very folder that is written.
"""

import base64
import importlib.metadata
import json
import shutil

import numpy as np
import safetensors.torch
import torch
import transformers

torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()


def versions():
  """The packages that the expected values come from."""
  packages = ["torch", "transformers", "safetensors", "tokenizers", "gguf", "numpy"]
  return {package: importlib.metadata.version(package) for package in packages}


def encode(array):
  """Little-endian F32 in base64, which Swift's `JSONDecoder` reads as `Data`."""
  return base64.b64encode(np.ascontiguousarray(array, dtype="<f4").tobytes()).decode()


def write_json(path, value):
  path.write_text(json.dumps(value, indent=1) + "\n")


def fresh_folder(path):
  shutil.rmtree(path, ignore_errors=True)
  path.mkdir(parents=True)
  return path


def random_tokens(count, vocabulary, seed):
  return torch.randint(0, vocabulary, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def random_weights(config, seed):
  """Weights large enough for peaked attention and logits of order one, by tensor name.

  A projection has deviation gain/sqrt(inputs); the gain of Q and K is 1.6, so that a softmax that is wrong in
  scale or mask moves the logits. Norm weights differ from one and biases from zero for the same reason.
  """
  generator = torch.Generator().manual_seed(seed)
  model = transformers.AutoModelForCausalLM.from_config(config)
  weights = {}
  for name, parameter in model.named_parameters():
    noise = torch.randn(parameter.shape, generator=generator)
    if name.endswith("norm.weight"):
      weights[name] = 1 + 0.2 * noise
    elif name.endswith(".bias"):
      weights[name] = 0.3 * noise
    elif name == "model.embed_tokens.weight":
      weights[name] = noise * (0.3 if config.tie_word_embeddings else 1)
    else:
      gain = 1.6 if "q_proj" in name or "k_proj" in name else 1
      weights[name] = gain * noise / parameter.shape[1] ** 0.5
  return weights


def write_folder(folder, config, seed, dtype=torch.float32, shard_bytes=None):
  """Writes `config` (keys as published on the hub) and random weights as a Hugging Face folder."""
  fresh_folder(folder)
  write_json(folder / "config.json", config)
  parsed = transformers.AutoConfig.from_pretrained(folder)
  weights = {name: tensor.to(dtype) for name, tensor in random_weights(parsed, seed).items()}
  safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
  if shard_bytes:
    model = load_folder(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size=shard_bytes)
    (folder / "generation_config.json").unlink(missing_ok=True)
    write_json(folder / "config.json", config)
  return load_folder(folder)


def load_folder(folder):
  """The model of a folder, in F32 whatever type it is stored in, with attention maps materialised."""
  model = transformers.AutoModelForCausalLM.from_pretrained(
    folder, dtype=torch.float32, attn_implementation="eager")
  return model.eval()


@torch.no_grad()
def logits(model, tokens):
  """`[tokens, vocabulary]`, F32."""
  result = model(torch.tensor([tokens]), use_cache=False).logits[0]
  assert result.dtype == torch.float32 and result.isfinite().all()
  return result


def qwen2(**changes):
  """Qwen2's published keys; `sliding_window` is present but unused, as in every released file."""
  return {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu",
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 101,
    "max_position_embeddings": 256, "max_window_layers": 2, "sliding_window": 256,
    "use_sliding_window": False, "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "float32",
    "bos_token_id": 0, "eos_token_id": 1,
  } | changes


def llama(**changes):
  """Llama's published keys."""
  return {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "attention_bias": False, "mlp_bias": False,
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 97,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "rope_scaling": None,
    "tie_word_embeddings": True, "torch_dtype": "float32", "bos_token_id": 0, "eos_token_id": 1,
  } | changes
