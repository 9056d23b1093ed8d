"""Makes `Fixtures/pair/`: two tiny models that share a vocabulary, and what IAM's recipe gives for them.

Computed here in PyTorch straight from the paper (Zhao, Li, Zhao, ACL 2025, arXiv 2507.11953): every map is
materialised and replaced, nothing is fast. With no map replaced the forward pass below must give the logits
of PyPI `transformers`, which the script checks. L, H, G = layers, query heads per layer, KV heads of the
large model; l, h of the small one; N tokens, the first τ of which establish the map and are run unmapped.

`large/` and `small/` are Hugging Face folders; `expected.json` holds (arrays: base64 of little-endian F32):
- `tokens` (N), `tau`, `vocabulary`;
- `large_maps` `[L·H, τ(τ+1)/2]`, `small_maps` `[l·h, N(N+1)/2]`: post-softmax maps, heads of layer 0 first,
  of each the rows 0, 1, … up to the diagonal. The first τ(τ+1)/2 of a small map are its map over the first τ
  tokens;
- `similarity` `[L·H, l·h]`: cosine over the first τ tokens; `map`: its arg max per large head;
- `unmapped`: logits `[N, vocabulary]` of the large model by itself; `mapped`: for several lists of `layers`
  the logits `[N, vocabulary]` when rows τ… of these layers' maps are those of the small heads.

Run: `python3 Tests/AttentionMappingTests/make_fixtures.py` with torch, transformers, safetensors, tokenizers
and gguf installed; `expected.json` names the versions.
"""

import pathlib
import sys

import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from tiny_models import encode, fresh_folder, logits, qwen2, random_tokens, versions, write_folder, write_json

PAIR = pathlib.Path(__file__).parent / "Fixtures" / "pair"
N, TAU = 60, 20
LARGE = qwen2(
  hidden_size=48, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2, intermediate_size=40)
SMALL = qwen2(
  hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=32,
  rope_theta=1000000.0, tie_word_embeddings=True)
MAPPED_LAYERS = [[2], [1, 2], [0, 2], [0, 1, 2]]


def rms_norm(x, weight, epsilon):
  return x / (x.pow(2).mean(-1, keepdim=True) + epsilon).sqrt() * weight


def rotate(x, theta):
  """Half-split RoPE at positions 0, 1, …; `x` is `[heads, tokens, head dim]`."""
  tokens, head_dim = x.shape[1:]
  frequencies = theta ** (-torch.arange(0, head_dim, 2) / head_dim)
  angles = torch.arange(tokens)[:, None] * frequencies
  first, second = x.chunk(2, dim=-1)
  cosine, sine = angles.cos(), angles.sin()
  return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


@torch.no_grad()
def forward(weights, config, tokens, replace):
  """Logits `[N, vocabulary]` and post-softmax maps `[layers, heads, N, N]` of a Qwen2 model.

  `replace(layer, maps)` returns the maps `[heads, N, N]` that the layer is to use.
  """
  heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
  count, head_dim = len(tokens), config["hidden_size"] // heads
  norm = lambda x, name: rms_norm(x, weights[f"{name}.weight"], config["rms_norm_eps"])
  multiply = torch.nn.functional.linear
  linear = lambda x, name: multiply(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))
  split = lambda x: x.view(count, -1, head_dim).transpose(0, 1)
  future = torch.ones(count, count).triu(1).bool()
  x, maps = weights["model.embed_tokens.weight"][tokens], []
  for index in range(config["num_hidden_layers"]):
    layer = f"model.layers.{index}"
    y = norm(x, f"{layer}.input_layernorm")
    q = rotate(split(linear(y, f"{layer}.self_attn.q_proj")), config["rope_theta"])
    k = rotate(split(linear(y, f"{layer}.self_attn.k_proj")), config["rope_theta"])
    v = split(linear(y, f"{layer}.self_attn.v_proj"))
    k, v = (t.repeat_interleave(heads // groups, dim=0) for t in (k, v))
    scores = (q @ k.transpose(1, 2) / head_dim**0.5).masked_fill(future, -torch.inf)
    maps.append(replace(index, scores.softmax(-1)))
    output = (maps[-1] @ v).transpose(0, 1).reshape(count, -1)
    x = x + linear(output, f"{layer}.self_attn.o_proj")
    y = norm(x, f"{layer}.post_attention_layernorm")
    gate = torch.nn.functional.silu(linear(y, f"{layer}.mlp.gate_proj"))
    x = x + linear(gate * linear(y, f"{layer}.mlp.up_proj"), f"{layer}.mlp.down_proj")
  output = "model.embed_tokens" if config["tie_word_embeddings"] else "lm_head"
  return multiply(norm(x, "model.norm"), weights[f"{output}.weight"]), torch.stack(maps)


def unmapped(model, config, tokens):
  """The pass with nothing replaced, checked against `transformers`; maps as `[layers · heads, N, N]`."""
  values, maps = forward(model.state_dict(), config, tokens, replace=lambda layer, maps: maps)
  assert (values - logits(model, tokens)).abs().max() < 2e-5
  return values, maps.flatten(0, 1)


def lower(maps):
  """`[heads, n, n]` to `[heads, n(n+1)/2]`: the lower triangle, row by row."""
  rows, columns = torch.tril_indices(maps.shape[1], maps.shape[1])
  return maps[:, rows, columns]


def cosine(large, small):
  """`S(i, j)`, `[L·H, l·h]`."""
  return large @ small.T / (large.norm(dim=1)[:, None] * small.norm(dim=1))


def mapped(model, tokens, small_maps, chosen, layers):
  """Logits of the large model when the `layers` borrow rows τ… from the small maps that `chosen` names."""
  heads = LARGE["num_attention_heads"]

  def replace(layer, maps):
    if layer not in layers:
      return maps
    borrowed = small_maps[chosen[layer * heads:(layer + 1) * heads]]
    return torch.cat([maps[:, :TAU], borrowed[:, TAU:]], dim=1)

  return forward(model.state_dict(), LARGE, tokens, replace)[0]


def main():
  fresh_folder(PAIR)
  large, small = write_folder(PAIR / "large", LARGE, seed=11), write_folder(PAIR / "small", SMALL, seed=12)
  tokens = random_tokens(N, LARGE["vocab_size"], seed=13)
  values, large_maps = unmapped(large, LARGE, tokens)
  _, small_maps = unmapped(small, SMALL, tokens)
  # Over the first τ tokens both models have the same maps with or without the rest: attention is causal.
  similarity = cosine(lower(large_maps[:, :TAU, :TAU]), lower(small_maps[:, :TAU, :TAU]))
  best = similarity.topk(2, dim=1)
  margin = (best.values[:, 0] - best.values[:, 1]).min().item()
  assert margin > 1e-3, f"a head's two best candidates are too close to test: {margin}"
  chosen = best.indices[:, 0]
  cases = []
  for layers in MAPPED_LAYERS:
    result = mapped(large, tokens, small_maps, chosen, layers)
    assert (result[:TAU] == values[:TAU]).all() and (result[TAU:] - values[TAU:]).abs().max() > 0.1
    print(f"layers {layers}: logits move by up to {(result - values).abs().max():.2f}")
    cases.append({"layers": layers, "logits": encode(result)})
  print(f"small heads in use {sorted(set(chosen.tolist()))}, smallest margin {margin:.4f}")
  write_json(PAIR / "expected.json", {
    "versions": versions(), "tokens": tokens, "tau": TAU, "vocabulary": LARGE["vocab_size"],
    "large_maps": encode(lower(large_maps[:, :TAU, :TAU])), "small_maps": encode(lower(small_maps)),
    "similarity": encode(similarity), "map": chosen.tolist(), "unmapped": encode(values), "mapped": cases})


if __name__ == "__main__":
  main()
