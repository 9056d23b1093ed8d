"""Makes Fixtures/dequantized.bin: random GGUF blocks of every quantised type and what the `gguf` package reads from them;
and Fixtures/quantized.bin: random floats, and the blocks of Q8_0 and Q4_0 that the package makes of them.

dequantized.bin, per type, little-endian: u32 type, u32 count, u32 bytes, then the block bytes, then `count` float32.
Blocks are random bytes, so that every bit pattern of quants and scales occurs, with the f16 factors set to random
values. quantized.bin, per type: u32 type, u32 count, then `count` float32, then their blocks.
Ran with gguf 0.19.0, numpy 2.4.6; run again: python make_fixtures.py
"""
import pathlib
import struct

import gguf
import numpy

# Byte offsets of the f16 factors in each block.
FACTORS = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}
ELEMENTS = 1024

random = numpy.random.default_rng(20)
fixtures = pathlib.Path(__file__).parent / "Fixtures"
with open(fixtures / "dequantized.bin", "wb") as file:
    for name, offsets in FACTORS.items():
        type = gguf.GGMLQuantizationType[name]
        columns, size = gguf.GGML_QUANT_SIZES[type]
        blocks = random.integers(0, 256, (ELEMENTS // columns, size), dtype=numpy.uint8)
        for offset in offsets:
            factors = random.normal(0, 0.02, len(blocks)).astype(numpy.float16)
            blocks[:, offset:offset + 2] = factors.view(numpy.uint8).reshape(-1, 2)
        values = gguf.quants.dequantize(blocks.reshape(-1), type).astype("<f4")
        file.write(struct.pack("<III", type, values.size, blocks.nbytes))
        file.write(blocks.tobytes() + values.tobytes())

with open(fixtures / "quantized.bin", "wb") as file:
    for name in ["Q8_0", "Q4_0"]:
        type = gguf.GGMLQuantizationType[name]
        values = (random.normal(0, 1, (ELEMENTS // 32, 32)) * random.lognormal(0, 2, (ELEMENTS // 32, 1))).astype("<f4")
        values[3] = 0
        file.write(struct.pack("<II", type, values.size))
        file.write(values.tobytes() + gguf.quants.quantize(values, type).tobytes())
