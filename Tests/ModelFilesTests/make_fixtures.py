"""Makes `Fixtures/`: small GGUF and safetensors files by the formats' reference packages, and what those
packages read from them.

Run: `python3 Tests/ModelFilesTests/make_fixtures.py` with gguf, safetensors, huggingface_hub, torch and numpy
installed; `Fixtures/versions.json` names the versions that made the committed files.

- `all-types.gguf`: every metadata type and every tensor type; `all-types.json`: how PyPI `gguf` reads it.
- `small.gguf`, `small.safetensors`: the files that tests truncate and alter.
- `tensor-types.json`: ggml's type ids with name, elements and bytes of a block.
- `single/`, `sharded/`: Hugging Face folders, with `expected.json` as PyPI `safetensors` reads them.
- `verdicts.json`: altered safetensors files, base64, and why the reference refuses them, or `null`.
"""

import base64
import importlib.metadata
import json
import pathlib
import random
import shutil
import struct

import gguf
import huggingface_hub
import numpy as np
import safetensors
import safetensors.torch
import torch

FIXTURES = pathlib.Path(__file__).parent / "Fixtures"
PACKAGES = ["gguf", "safetensors", "huggingface_hub", "torch", "numpy"]
QUANTIZED = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
Types, Values = gguf.GGMLQuantizationType, gguf.GGUFValueType


def write_json(name, value):
  (FIXTURES / name).write_text(json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def fnv1a(data):
  """The 64-bit FNV-1a hash, in hexadecimal: enough to see that all bytes are the same."""
  value = 0xCBF29CE484222325
  for byte in data:
    value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
  return f"{value:016x}"


# GGUF

SCALARS = {
  "uint8": (200, Values.UINT8), "int8": (-100, Values.INT8),
  "uint16": (60_000, Values.UINT16), "int16": (-30_000, Values.INT16),
  "uint32": (4_000_000_000, Values.UINT32), "int32": (-2_000_000_000, Values.INT32),
  "uint64": (2**64 - 1, Values.UINT64), "int64": (-(2**63), Values.INT64),
  "float32": (0.1, Values.FLOAT32), "float64": (0.1, Values.FLOAT64),
  "true": (True, Values.BOOL), "false": (False, Values.BOOL),
  "string": ("Grüße, 世界 🌍", Values.STRING), "empty string": ("", Values.STRING),
}

ARRAYS = {
  "uint8s": ([0, 255], Values.UINT8), "int8s": ([-128, 127], Values.INT8),
  "uint16s": ([0, 65_535], Values.UINT16), "int16s": ([-32_768, 32_767], Values.INT16),
  "uint32s": ([0, 2**32 - 1], Values.UINT32), "int32s": ([-(2**31), 2**31 - 1], Values.INT32),
  "uint64s": ([0, 2**64 - 1], Values.UINT64), "int64s": ([-(2**63), 2**63 - 1], Values.INT64),
  "float32s": ([0.5, -1e30], Values.FLOAT32), "float64s": ([0.1, 1e300], Values.FLOAT64),
  "bools": ([True, False, True], Values.BOOL),
  # Token bytes that are no UTF-8, as vocabularies have them.
  "strings": ([b"a", b"", b"\xff\xfe", "é".encode()], Values.STRING),
}


def write_gguf(path, fill, alignment=None):
  writer = gguf.GGUFWriter(path, "test")
  if alignment:
    writer.add_custom_alignment(alignment)
  fill(writer)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()


def add_quantized(writer, name, type_name, rows, blocks, random_state):
  """Adds random blocks: the reader under test copies bytes, whatever they stand for."""
  kind = Types[type_name]
  data = random_state.integers(0, 256, (rows, blocks * gguf.GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
  writer.add_tensor(name, data, raw_dtype=kind)


def make_all_types():
  random_state = np.random.default_rng(1)

  def fill(writer):
    for key, (value, kind) in SCALARS.items():
      writer.add_key_value(f"scalar.{key}", value, kind)
    for key, (values, kind) in ARRAYS.items():
      writer.add_key_value(f"array.{key}", values, Values.ARRAY, sub_type=kind)
    writer.add_array("array.nested", [[1, 2], [3]])
    writer.add_tensor("f32", random_state.standard_normal((3, 5)).astype(np.float32))
    writer.add_tensor("f16", random_state.standard_normal((2, 3, 4)).astype(np.float16))
    bf16 = random_state.integers(0, 256, (4, 14), dtype=np.uint8)
    writer.add_tensor("bf16", bf16, raw_dtype=Types.BF16)
    writer.add_tensor("vector", np.arange(7, dtype=np.float32))
    writer.add_tensor("integers", np.arange(6, dtype=np.int32).reshape(2, 3))
    for type_name in QUANTIZED:
      add_quantized(writer, type_name.lower(), type_name, 2, 2, random_state)
    add_quantized(writer, "iq4_xs", "IQ4_XS", 1, 1, random_state)

  path = FIXTURES / "all-types.gguf"
  write_gguf(path, fill, alignment=64)
  reader = gguf.GGUFReader(path)
  contents = path.read_bytes()
  tensors = [
    {
      "name": tensor.name, "type": tensor.tensor_type.name, "shape": [int(n) for n in reversed(tensor.shape)],
      "offset": tensor.data_offset, "bytes": tensor.n_bytes,
      "hash": fnv1a(contents[tensor.data_offset:tensor.data_offset + tensor.n_bytes]),
    }
    for tensor in reader.tensors
  ]
  scalars = {key: reader.fields[f"scalar.{key}"].contents() for key in SCALARS}
  # As the package's reader does not keep bytes that are no UTF-8, strings go in as hexadecimal.
  arrays = {
    key: [value.hex() if isinstance(value, bytes) else value for value in values]
    for key, (values, _) in ARRAYS.items()}
  write_json("all-types.json", {"tensors": tensors, "scalars": scalars, "arrays": arrays})


def make_small_gguf():
  def fill(writer):
    writer.add_uint32("a.integer", 7)
    writer.add_array("a.tokens", ["<s>", "a", "ab"])
    writer.add_array("a.numbers", [1.5, 2.5])
    writer.add_array("a.nested", [[1], [2, 3]])
    writer.add_bool("a.bool", True)
    writer.add_tensor("weights", np.arange(8, dtype=np.float32).reshape(2, 4))
    add_quantized(writer, "blocks", "Q8_0", 2, 1, np.random.default_rng(2))

  path = FIXTURES / "small.gguf"
  write_gguf(path, fill)
  # Without the padding after the last tensor every byte counts.
  last = gguf.GGUFReader(path).tensors[-1]
  end = int(last.data_offset + last.n_bytes)
  del last
  path.write_bytes(path.read_bytes()[:end])


def make_tensor_types():
  write_json("tensor-types.json", [
    {"id": kind.value, "name": kind.name, "elements": elements, "bytes": size}
    for kind, (elements, size) in gguf.GGML_QUANT_SIZES.items()])


# Safetensors


def weights():
  generator = torch.Generator().manual_seed(3)
  return {
    "model.embed_tokens.weight": torch.randn(16, 8, generator=generator),
    "model.layers.0.weight": torch.randn(8, 8, generator=generator).to(torch.bfloat16),
    "model.layers.0.bias": torch.randn(8, generator=generator).to(torch.float16),
    "model.layers.1.weight": torch.randn(2, 3, 5, generator=generator),
    "model.empty": torch.zeros(0, 4),
    "model.positions": torch.arange(5),
    "model.scale": torch.tensor(2.5),
  }


def expected(folder):
  """Name, type, shape and bytes of every tensor, as the reference reads them."""
  tensors = []
  for path in sorted(folder.glob("*.safetensors")):
    for name, tensor in safetensors.deserialize(path.read_bytes()):
      tensors.append({
        "name": name, "type": tensor["dtype"], "shape": list(tensor["shape"]), "bytes": len(tensor["data"]),
        "hash": fnv1a(tensor["data"])})
  return sorted(tensors, key=lambda tensor: tensor["name"])


def make_folders():
  for name in ["single", "sharded"]:
    folder = FIXTURES / name
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "test", "hidden_size": 8}\n')
    if name == "single":
      safetensors.torch.save_file(weights(), folder / "model.safetensors", metadata={"format": "pt"})
      (folder / "generation_config.json").write_text('{"eos_token_id": [1, 2]}\n')
    else:
      huggingface_hub.save_torch_state_dict(weights(), folder, max_shard_size=400)
    write_json(f"{name}/expected.json", expected(folder))


def safetensors_file(header, data):
  text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
  return struct.pack("<Q", len(text)) + text + data


def tensor(start, end, shape, dtype="F32"):
  return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def hostile_files():
  """Header and data by what is odd about them."""
  whole = tensor(0, 8, [2])
  yield "two tensors", safetensors_file({"a": whole, "b": tensor(8, 12, [1])}, bytes(12))
  yield "out of order", safetensors_file({"a": tensor(4, 12, [2]), "b": tensor(0, 4, [1])}, bytes(12))
  yield "gap", safetensors_file({"a": whole, "b": tensor(12, 16, [1])}, bytes(16))
  yield "overlap", safetensors_file({"a": whole, "b": tensor(4, 12, [2])}, bytes(12))
  yield "same bytes", safetensors_file({"a": whole, "b": whole}, bytes(8))
  yield "data after the last", safetensors_file({"a": whole}, bytes(12))
  yield "data missing", safetensors_file({"a": whole}, bytes(4))
  yield "start in the header", safetensors_file({"a": tensor(-8, 0, [2])}, bytes(8))
  yield "end before start", safetensors_file({"a": tensor(8, 0, [2])}, bytes(8))
  yield "size is not the shape's", safetensors_file({"a": tensor(0, 8, [3])}, bytes(8))
  yield "negative dimension", safetensors_file({"a": tensor(0, 8, [-2])}, bytes(8))
  yield "shape overflows", safetensors_file({"a": tensor(0, 8, [2**62, 2**62])}, bytes(8))
  yield "dimension of 64 bits", safetensors_file({"a": tensor(0, 0, [2**64 - 1, 0])}, b"")
  yield "fractional dimension", safetensors_file({"a": tensor(0, 8, [2.0])}, bytes(8))
  yield "shape is a number", safetensors_file({"a": tensor(0, 8, 2)}, bytes(8))
  yield "three offsets", safetensors_file({"a": {**whole, "data_offsets": [0, 4, 8]}}, bytes(8))
  yield "one offset", safetensors_file({"a": {**whole, "data_offsets": [0]}}, bytes(8))
  yield "no shape", safetensors_file({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, bytes(8))
  yield "no dtype", safetensors_file({"a": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8))
  yield "dtype is a number", safetensors_file({"a": {**whole, "dtype": 3}}, bytes(8))
  yield "tensor is a list", safetensors_file({"a": []}, b"")
  yield "scalar", safetensors_file({"a": tensor(0, 4, [])}, bytes(4))
  yield "empty tensor", safetensors_file({"a": tensor(0, 0, [0, 5]), "b": tensor(0, 4, [1])}, bytes(4))
  yield "no tensors", safetensors_file({}, b"")
  yield "metadata", safetensors_file({"__metadata__": {"a": "b"}, "a": whole}, bytes(8))
  yield "metadata of numbers", safetensors_file({"__metadata__": {"a": 1}, "a": whole}, bytes(8))
  yield "metadata is a list", safetensors_file({"__metadata__": [], "a": whole}, bytes(8))
  yield "padding after the header", safetensors_file(json.dumps({"a": whole}).encode() + b"   ", bytes(8))
  yield "rubbish after the header", safetensors_file(json.dumps({"a": whole}).encode() + b"  x", bytes(8))
  yield "header is a list", safetensors_file(b"[]", b"")
  yield "header is empty", safetensors_file(b"", b"")
  yield "header is no UTF-8", safetensors_file(b'{"\xff":1}', b"")
  yield "header is cut off", safetensors_file(b'{"a":{"dtype":"F32","shape":[2],', b"")
  yield "file is empty but for the length", struct.pack("<Q", 0)
  yield "length beyond the file", struct.pack("<Q", 100) + b"{}"
  yield "length beyond the limit", struct.pack("<Q", 100_000_001) + b"{}"
  yield "length of 64 bits", struct.pack("<Q", 2**64 - 1) + b"{}"
  yield "nested too deep", safetensors_file(b'{"a":' + b"[" * 300 + b"]" * 300 + b"}", b"")


def altered_files():
  """A valid file with random bytes changed, half of them in the digits and punctuation that matter."""
  header = {"__metadata__": {"k": "v"}, "a": tensor(0, 8, [2]), "b": tensor(8, 20, [3, 2], "F16")}
  contents = safetensors_file(header, bytes(range(20)))
  header_end = len(contents) - 20
  source = random.Random(4)
  for index in range(160):
    altered = bytearray(contents)
    for _ in range(source.choice([1, 1, 2])):
      place = source.randrange(header_end)
      altered[place] = source.choice([source.randrange(256), source.choice(b'0123456789{}[]":, ')])
    yield f"altered {index}", bytes(altered)


def refusal(contents):
  try:
    safetensors.deserialize(contents)
    return None
  except Exception as error:
    return str(error)


def make_verdicts():
  files = [*hostile_files(), *altered_files()]
  write_json("verdicts.json", [
    {"name": name, "file": base64.b64encode(contents).decode(), "refusal": refusal(contents)}
    for name, contents in files])
  header = {"__metadata__": {"k": "v"}, "a": tensor(0, 8, [2]), "b": tensor(8, 20, [3, 2], "BF16")}
  small = safetensors_file(header, bytes(range(20)))
  assert refusal(small) is None
  (FIXTURES / "small.safetensors").write_bytes(small)


def main():
  shutil.rmtree(FIXTURES, ignore_errors=True)
  FIXTURES.mkdir()
  make_all_types()
  make_small_gguf()
  make_tensor_types()
  make_folders()
  make_verdicts()
  write_json("versions.json", {package: importlib.metadata.version(package) for package in PACKAGES})


main()
