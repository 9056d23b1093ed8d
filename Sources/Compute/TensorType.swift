// The element types that model files store, with the sizes of their blocks.
//
// Format: ggml's block layouts; sizes are checked against PyPI `gguf` in `ModelFilesTests`.

import CKindredKernels

// swift-format-ignore: AlwaysUseLowerCamelCase
/// How the elements of a stored tensor are encoded.
public enum TensorType: UInt32, Sendable, Hashable, CaseIterable {
  // Raw values are GGUF's tensor type ids, which `CKindredKernels` shares.
  case f32 = 0
  case f16 = 1
  case q4_0 = 2
  case q4_1 = 3
  case q5_0 = 6
  case q5_1 = 7
  case q8_0 = 8
  case q2K = 10
  case q3K = 11
  case q4K = 12
  case q5K = 13
  case q6K = 14
  case bf16 = 30

  /// Elements that are encoded together; a row's length is a multiple of it.
  public var blockElements: Int {
    switch self {
    case .f32, .f16, .bf16: 1
    case .q4_0, .q4_1, .q5_0, .q5_1, .q8_0: 32
    case .q2K, .q3K, .q4K, .q5K, .q6K: 256
    }
  }

  /// Bytes of one block in a model file.
  public var blockBytes: Int {
    switch self {
    case .f32: 4
    case .f16, .bf16: 2
    case .q4_0: 18
    case .q4_1: 20
    case .q5_0: 22
    case .q5_1: 24
    case .q8_0: 34
    case .q2K: 84
    case .q3K: 110
    case .q4K: 144
    case .q5K: 176
    case .q6K: 210
    }
  }

  /// The name by which ggml and its users know the type, in upper case: `Q4_K`.
  public var name: String {
    switch self {
    case .f32: "F32"
    case .f16: "F16"
    case .bf16: "BF16"
    case .q4_0: "Q4_0"
    case .q4_1: "Q4_1"
    case .q5_0: "Q5_0"
    case .q5_1: "Q5_1"
    case .q8_0: "Q8_0"
    case .q2K: "Q2_K"
    case .q3K: "Q3_K"
    case .q4K: "Q4_K"
    case .q5K: "Q5_K"
    case .q6K: "Q6_K"
    }
  }

  /// Bytes of `elements` elements in a model file, or `nil` where they do not fill whole blocks or overflow.
  public func byteCount(elements: Int) -> Int? {
    guard elements >= 0, elements % blockElements == 0 else { return nil }
    let (bytes, overflow) = (elements / blockElements).multipliedReportingOverflow(by: blockBytes)
    return overflow ? nil : bytes
  }

  /// The same type as the kernels name it.
  package var kernelType: kindred_type { kindred_type(rawValue: rawValue) }
}

extension TensorType {
  /// Stored elements as float; the slow, obviously right reading of a model file.
  ///
  /// - Parameters:
  ///   - bytes: whole blocks, `[count]` elements or more.
  ///   - count: how many elements are read.
  public func dequantize(_ bytes: UnsafeRawBufferPointer, count: Int) -> [Float] {
    precondition(byteCount(elements: count) ?? .max <= bytes.count, "dequantize: too few bytes")
    return [Float](unsafeUninitializedCapacity: count) { buffer, initialized in
      if let source = bytes.baseAddress, let destination = buffer.baseAddress {
        kindred_dequantize(kernelType, source, count, destination)
      }
      initialized = count
    }
  }
}
