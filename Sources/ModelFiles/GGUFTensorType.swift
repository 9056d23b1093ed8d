// All tensor types of ggml: those that this package reads, and those that it can only name and measure.
//
// Checked against `gguf.GGML_QUANT_SIZES` of PyPI `gguf`.

import KindredCompute

/// A tensor type as GGUF files number it.
struct GGUFTensorType {
  /// The same type in this package, or `nil` where it is not read.
  let type: TensorType?
  /// ggml's name.
  let name: String
  /// Elements that are encoded together; a row's length is a multiple of it.
  let blockElements: Int
  /// Bytes of one block.
  let blockBytes: Int

  /// The type whose id is `id`, or `nil` where ggml has none.
  init?(id: UInt32) {
    if let type = TensorType(rawValue: id) {
      self.type = type
      (name, blockElements, blockBytes) = (type.name, type.blockElements, type.blockBytes)
    } else if let unread = Self.unread[id] {
      type = nil
      (name, blockElements, blockBytes) = unread
    } else {
      return nil
    }
  }

  /// Bytes of a tensor of `shape`, or `nil` where its rows are not whole blocks or the size overflows.
  func byteCount(of shape: [Int]) -> Int? {
    guard (shape.last ?? 1) % blockElements == 0, let elements = elementCount(of: shape) else { return nil }
    let (bytes, overflow) = (elements / blockElements).multipliedReportingOverflow(by: blockBytes)
    return overflow ? nil : bytes
  }

  private static let unread: [UInt32: (name: String, blockElements: Int, blockBytes: Int)] = [
    9: ("Q8_1", 32, 40),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
  ]
}
