"""Makes Fixtures/dequantized.bin: random GGUF blocks of every quantised type and what the `gguf` package reads from them.

Per type, little-endian: u32 type, u32 count, u32 bytes, then the block bytes, then `count` float32. Blocks are
random bytes, so that every bit pattern of quants and scales occurs, with the f16 factors set to random values.
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
with open(pathlib.Path(__file__).parent / "Fixtures" / "dequantized.bin", "wb") as file:
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
