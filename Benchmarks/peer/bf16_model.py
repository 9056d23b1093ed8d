"""Writes the BF16 twins of a Qwen2 GGUF file: `bf16_model.py IN.gguf FOLDER`.

FOLDER gets `model.gguf` for llama.cpp and, in the layout that Hugging Face `transformers` saves, `config.json`,
`tokenizer.json` and `model.safetensors`: the same numbers under other names. Matrices become BF16; vectors stay
F32, as llama.cpp's own converter leaves them. `streamed.json`, written last, gives the bytes that one decoded
token must read: all tensors but the embedding. The architecture is checked, since others permute rows of Q and K.
"""

import json
import pathlib
import sys

import gguf
import numpy

PARTS = {
  "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
  "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
  "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
CONTROL, USER_DEFINED = 3, 4
# How Qwen2 splits text (`tokenizer.ggml.pre` = qwen2).
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
         r"|\s+(?!\S)|\s+")


def hugging_face_name(name):
  """`blk.3.attn_q.bias` → `model.layers.3.self_attn.q_proj.bias`"""
  *parent, part, kind = name.split(".")
  if not parent:
    return f"{OUTSIDE[part]}.{kind}"
  return f"model.layers.{parent[1]}.{PARTS[part]}.{kind}"


def converted(tensor):
  """The tensor's bytes in its new type; its shape goes with it, outermost dimension first."""
  values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
  return gguf.quants.quantize(values, new_type(tensor))


def new_type(tensor):
  kinds = gguf.GGMLQuantizationType
  return kinds.BF16 if len(tensor.shape) == 2 else kinds.F32


def new_bytes(tensor):
  return int(tensor.n_elements) * (2 if len(tensor.shape) == 2 else 4)


def config(value):
  """config.json, from `value(key)` of the metadata."""
  return {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "torch_dtype": "bfloat16", "hidden_act": "silu",
    "vocab_size": len(value("tokenizer.ggml.tokens")), "hidden_size": value("qwen2.embedding_length"),
    "intermediate_size": value("qwen2.feed_forward_length"), "num_hidden_layers": value("qwen2.block_count"),
    "num_attention_heads": value("qwen2.attention.head_count"),
    "num_key_value_heads": value("qwen2.attention.head_count_kv"),
    "max_position_embeddings": value("qwen2.context_length"), "rope_theta": value("qwen2.rope.freq_base"),
    "rms_norm_eps": value("qwen2.attention.layer_norm_rms_epsilon"), "use_sliding_window": False,
    "tie_word_embeddings": False, "eos_token_id": value("tokenizer.ggml.eos_token_id")}


def tokenizer(value):
  """tokenizer.json, from `value(key)` of the metadata."""
  tokens = list(zip(value("tokenizer.ggml.tokens"), value("tokenizer.ggml.token_type")))
  added = [
    {"id": id, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
     "special": kind == CONTROL}
    for id, (text, kind) in enumerate(tokens) if kind in (CONTROL, USER_DEFINED)]
  special = {token["id"] for token in added}
  byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
  return {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": {"type": "NFC"},
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}, byte_level]},
    "post_processor": byte_level, "decoder": byte_level,
    "model": {
      "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
      "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
      "vocab": {text: id for id, (text, _) in enumerate(tokens) if id not in special},
      "merges": value("tokenizer.ggml.merges")}}


def safetensors_header(tensors):
  """Length, then JSON with the place of every tensor, padded so that the data are aligned."""
  header, offset = {}, 0
  for tensor in tensors:
    header[hugging_face_name(tensor.name)] = {
      "dtype": "BF16" if len(tensor.shape) == 2 else "F32", "shape": [int(n) for n in reversed(tensor.shape)],
      "data_offsets": [offset, offset + new_bytes(tensor)]}
    offset += new_bytes(tensor)
  text = json.dumps(header).encode()
  text += b" " * (-(8 + len(text)) % 64)
  return len(text).to_bytes(8, "little") + text


def gguf_writer(reader, path):
  """A writer that has the metadata of `reader` and the new types of its tensors."""
  writer = gguf.GGUFWriter(path, "qwen2")
  for field in reader.fields.values():
    if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
      continue
    element = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
    writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=element)
  writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
  for tensor in reader.tensors:
    shape = [int(n) for n in reversed(tensor.shape)]
    # The type of the elements only counts where no `raw_dtype` is given.
    writer.add_tensor_info(
      tensor.name, shape, numpy.dtype(numpy.float32), new_bytes(tensor), raw_dtype=new_type(tensor))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_ti_data_to_file()
  return writer


def main():
  source, folder = sys.argv[1], pathlib.Path(sys.argv[2])
  reader = gguf.GGUFReader(source)
  value = lambda key: reader.fields[key].contents()
  if value("general.architecture") != "qwen2":
    sys.exit(f"{source}: general.architecture: expected qwen2, found {value('general.architecture')}")
  folder.mkdir(parents=True, exist_ok=True)
  (folder / "config.json").write_text(json.dumps(config(value), indent=2))
  (folder / "tokenizer.json").write_text(json.dumps(tokenizer(value), ensure_ascii=False))
  writer = gguf_writer(reader, folder / "model.gguf")
  with open(folder / "model.safetensors", "wb") as weights:
    weights.write(safetensors_header(reader.tensors))
    for tensor in reader.tensors:
      data = converted(tensor)
      weights.write(data.tobytes())
      writer.write_tensor_data(data)
  writer.close()
  streamed = sum(new_bytes(tensor) for tensor in reader.tensors if tensor.name != "token_embd.weight")
  (folder / "streamed.json").write_text(json.dumps({"bytes_per_token": streamed}))


if __name__ == "__main__":
  main()
