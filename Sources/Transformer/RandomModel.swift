// Random weights of published shapes. Speed and memory do not depend on weight values, so models that cannot be had,
// or do not fit, are measured this way; every report says so.
//
// Shapes: the models' published `config.json` files.

import Foundation
import KindredCompute
import KindredModelFiles

/// A model whose weights are made up when they are read: `random:qwen2-72b:layers=4:q4_k`.
public struct RandomModel: TensorContainer, CustomStringConvertible {
  /// What is wrong with a specification.
  public struct SpecificationError: Error, Sendable, CustomStringConvertible {
    public let description: String
  }

  /// The specification, as given.
  public let description: String
  /// The shape, with the number of layers that was asked for.
  public let configuration: DecoderConfiguration
  /// The layers that the published model has.
  public let publishedLayerCount: Int

  private let type: TensorType
  private let hasBiases: Bool
  private let isTied: Bool

  /// Reads `random:SHAPE[:layers=N][:TYPE]`.
  ///
  /// `TYPE` is `f32`, `f16`, `bf16`, `q8_0` or `q4_k` (the default). A shape whose rows do not fill a block of the
  /// type gets `q8_0` for those tensors, as quantisers do.
  public init(_ specification: String) throws(SpecificationError) {
    var parts = specification.split(separator: ":", omittingEmptySubsequences: false).map(String.init)[...]
    guard parts.popFirst() == "random", let name = parts.popFirst(), let shape = Shape.all[name] else {
      let known = Shape.all.keys.sorted().joined(separator: ", ")
      throw SpecificationError(
        description: "\(specification): expected random:SHAPE with SHAPE one of \(known)")
    }
    var layers = shape.layers
    var type = TensorType.q4K
    for option in parts {
      if let value = option.split(separator: "=").last, option.hasPrefix("layers="), let count = Int(value),
        (1...shape.layers).contains(count)
      {
        layers = count
      } else if let named = Self.types[option.lowercased()] {
        type = named
      } else {
        throw SpecificationError(
          description: "\(specification): expected layers=1…\(shape.layers) or one of "
            + "\(Self.types.keys.sorted().joined(separator: ", ")), found \"\(option)\"")
      }
    }
    description = specification
    self.type = type
    hasBiases = shape.family == "qwen2"
    isTied = shape.isTied
    var configuration = shape.configuration(layers: layers)
    configuration.isSlice = layers < shape.layers
    self.configuration = configuration
    publishedLayerCount = shape.layers
  }

  private static let types: [String: TensorType] = [
    "f32": .f32, "f16": .f16, "bf16": .bf16, "q8_0": .q8_0, "q4_k": .q4K,
  ]

  public var tensorNames: [String] { shapes.keys.sorted() }

  /// The tensors by name.
  private var shapes: [String: [Int]] {
    let size = configuration.hiddenSize
    let feedForward = configuration.feedForwardSize
    let attention = configuration.attention
    let queries = attention.queryHeads * attention.headDimension
    let keys = attention.kvHeads * attention.headDimension
    var shapes: [String: [Int]] = [
      "token_embd.weight": [configuration.vocabularySize, size], "output_norm.weight": [size],
    ]
    if !isTied { shapes["output.weight"] = [configuration.vocabularySize, size] }
    for layer in 0..<configuration.layerCount {
      let ofLayer: [String: [Int]] = [
        "attn_norm.weight": [size], "attn_q.weight": [queries, size], "attn_k.weight": [keys, size],
        "attn_v.weight": [keys, size], "attn_output.weight": [size, queries], "ffn_norm.weight": [size],
        "ffn_gate.weight": [feedForward, size], "ffn_up.weight": [feedForward, size],
        "ffn_down.weight": [size, feedForward],
      ]
      for (name, shape) in ofLayer { shapes["blk.\(layer).\(name)"] = shape }
      guard hasBiases else { continue }
      for (name, count) in ["attn_q": queries, "attn_k": keys, "attn_v": keys] {
        shapes["blk.\(layer).\(name).bias"] = [count]
      }
    }
    return shapes
  }

  /// - Throws: `ModelFileError` where memory is lacking.
  public func tensor(named name: String) throws(ModelFileError) -> ModelTensor? {
    guard let shape = shapes[name] else { return nil }
    if shape.count == 1 {
      return try RandomTensor.make(name: name, type: .f32, shape: shape, constant: name.hasSuffix("bias") ? 0 : 1)
    }
    let fits = shape[1] % type.blockElements == 0
    return try RandomTensor.make(name: name, type: fits ? type : .q8_0, shape: shape, constant: nil)
  }

  /// What a published configuration gives.
  private struct Shape {
    var family: String
    var layers: Int, hidden: Int, feedForward: Int, heads: Int, kvHeads: Int, headDimension: Int
    var vocabulary: Int, context: Int
    var isTied: Bool

    func configuration(layers: Int) -> DecoderConfiguration {
      DecoderConfiguration(
        family: family, vocabularySize: vocabulary, layerCount: layers, hiddenSize: hidden,
        feedForwardSize: feedForward,
        attention: AttentionShape(queryHeads: heads, kvHeads: kvHeads, headDimension: headDimension),
        normEpsilon: 1e-6,
        rotary: RotaryConfiguration(
          base: family == "llama" ? 500_000 : 1_000_000, dimension: headDimension,
          interleaved: family == "llama", scaling: .none),
        contextLength: context)
    }

    // layers, hidden, feed-forward, query heads, KV heads, head dimension, vocabulary, tied
    private static let qwen2: [String: (Int, Int, Int, Int, Int, Int, Int, Bool)] = [
      "0.5b": (24, 896, 4864, 14, 2, 64, 151_936, true),
      "1.5b": (28, 1536, 8960, 12, 2, 128, 151_936, true),
      "7b": (28, 3584, 18_944, 28, 4, 128, 152_064, false),
      "72b": (80, 8192, 29_568, 64, 8, 128, 152_064, false),
    ]
    private static let qwen25Only: [String: (Int, Int, Int, Int, Int, Int, Int, Bool)] = [
      "3b": (36, 2048, 11_008, 16, 2, 128, 151_936, true),
      "14b": (48, 5120, 13_824, 40, 8, 128, 152_064, false),
      "32b": (64, 5120, 27_648, 40, 8, 128, 152_064, false),
    ]
    private static let llama: [String: (Int, Int, Int, Int, Int, Int, Int, Bool)] = [
      "3.1-8b": (32, 4096, 14_336, 32, 8, 128, 128_256, false),
      "3.1-70b": (80, 8192, 28_672, 64, 8, 128, 128_256, false),
      "3.2-1b": (16, 2048, 8192, 32, 8, 64, 128_256, true),
      "3.2-3b": (28, 3072, 8192, 24, 8, 128, 128_256, true),
    ]

    static let all: [String: Shape] = {
      var all: [String: Shape] = [:]
      func add(_ sizes: [String: (Int, Int, Int, Int, Int, Int, Int, Bool)], _ prefix: String, _ family: String) {
        for (name, size) in sizes {
          all["\(prefix)-\(name)"] = Shape(
            family: family, layers: size.0, hidden: size.1, feedForward: size.2, heads: size.3, kvHeads: size.4,
            headDimension: size.5, vocabulary: size.6, context: 131_072, isTied: size.7)
        }
      }
      add(qwen2, "qwen2", "qwen2")
      add(qwen2, "qwen2.5", "qwen2")
      add(qwen25Only, "qwen2.5", "qwen2")
      add(llama, "llama", "llama")
      return all
    }()
  }
}

/// Bytes of a made-up tensor: random quants with scales that keep activations near one.
private enum RandomTensor {
  /// Memory of one tensor.
  private final class Storage: @unchecked Sendable {
    let memory: AlignedBuffer
    init(byteCount: Int) throws(ComputeError) { memory = try AlignedBuffer(byteCount: byteCount) }
  }

  /// A tensor of random elements, or of `constant`.
  static func make(
    name: String, type: TensorType, shape: [Int], constant: Float?
  ) throws(ModelFileError) -> ModelTensor {
    let count = shape.reduce(1, *)
    guard let bytes = type.byteCount(elements: count), let storage = try? Storage(byteCount: bytes) else {
      throw ModelFileError(
        path: "random weights", field: "tensor \"\(name)\"",
        problem: "expected memory for \(count) elements, found too little")
    }
    let memory = UnsafeMutableRawBufferPointer(start: storage.memory.pointer, count: bytes)
    if let constant {
      memory.bindMemory(to: Float.self).update(repeating: constant)
    } else {
      fill(memory, type: type, magnitude: 1 / Float(shape[shape.count - 1]).squareRoot())
    }
    return ModelTensor(name: name, type: type, shape: shape, owner: storage, bytes: UnsafeRawBufferPointer(memory))
  }

  private static func fill(_ memory: UnsafeMutableRawBufferPointer, type: TensorType, magnitude: Float) {
    var state: UInt64 = 0x9E37_79B9_7F4A_7C15
    func next() -> UInt64 {  // xorshift64
      state ^= state << 13
      state ^= state >> 7
      state ^= state << 17
      return state
    }
    func uniform() -> Float { (Float(next() >> 40) / Float(1 << 23) - 1) * magnitude * 1.7 }
    let bytes = memory.count
    switch type {
    case .f32:
      for offset in stride(from: 0, to: bytes, by: 4) {
        memory.storeBytes(of: uniform(), toByteOffset: offset, as: Float.self)
      }
    case .bf16:
      for offset in stride(from: 0, to: bytes, by: 2) {
        memory.storeBytes(of: UInt16(uniform().bitPattern >> 16), toByteOffset: offset, as: UInt16.self)
      }
    case .f16:
      for offset in stride(from: 0, to: bytes, by: 2) {
        memory.storeBytes(of: halfBits(uniform()), toByteOffset: offset, as: UInt16.self)
      }
    default:
      for offset in stride(from: 0, to: bytes & ~7, by: 8) {
        memory.storeBytes(of: next(), toByteOffset: offset, as: UInt64.self)
      }
      // Block scales: Q8_0 has one half at the start, Q4_K a scale and a minimum there.
      let scale = type == .q8_0 ? magnitude / 73 : magnitude / 150
      for block in stride(from: 0, to: bytes, by: type.blockBytes) {
        memory.storeBytes(of: halfBits(scale), toByteOffset: block, as: UInt16.self)
        if type == .q4K { memory.storeBytes(of: halfBits(scale * 7.5), toByteOffset: block + 2, as: UInt16.self) }
      }
    }
  }

  /// The bits of a finite positive or negative half in the normal range, truncated; `Float16` does not exist in Swift
  /// on every platform.
  private static func halfBits(_ value: Float) -> UInt16 {
    let bits = value.bitPattern
    let exponent = Int(bits >> 23 & 0xFF) - 127 + 15
    guard exponent > 0 else { return 0 }
    return UInt16(bits >> 16 & 0x8000) | UInt16(exponent) << 10 | UInt16(bits >> 13 & 0x3FF)
  }
}
