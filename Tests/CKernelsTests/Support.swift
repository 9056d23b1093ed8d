// What the kernel tests share: the machine's instruction sets, random data, and a multiplication by definition.
import CKindredKernels
import Foundation
import Testing

let quantizedTypes: [kindred_type] = [
  KINDRED_Q4_0, KINDRED_Q4_1, KINDRED_Q5_0, KINDRED_Q5_1, KINDRED_Q8_0,
  KINDRED_Q2_K, KINDRED_Q3_K, KINDRED_Q4_K, KINDRED_Q5_K, KINDRED_Q6_K,
]
let denseTypes: [kindred_type] = [KINDRED_F32, KINDRED_F16, KINDRED_BF16]
/// Types of keys and values that are stored in blocks of 32.
let blockTypes: [kindred_type] = [KINDRED_Q8_0, KINDRED_Q4_0]

/// One instruction set that this machine has.
struct InstructionSet: CustomTestStringConvertible, Sendable {
  let isa: kindred_isa

  static let available = [KINDRED_ISA_GENERIC, KINDRED_ISA_AVX2, KINDRED_ISA_AVX512, KINDRED_ISA_AMX, KINDRED_ISA_NEON]
    .filter(kindred_isa_available).map(InstructionSet.init)

  static let generic = InstructionSet(isa: KINDRED_ISA_GENERIC)

  var kernels: kindred_kernels { kindred_kernels_for(isa)!.pointee }

  var testDescription: String { ["generic", "avx2", "avx512", "neon", "amx"][Int(isa.rawValue)] }
}

/// SplitMix64, so that every run sees the same numbers.
struct Random {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }

  mutating func uniform(_ range: ClosedRange<Float>) -> Float {
    range.lowerBound + (range.upperBound - range.lowerBound) * Float(next() >> 40) / 0x1p24
  }

  mutating func values(_ count: Int, in range: ClosedRange<Float> = -1...1) -> [Float] {
    (0..<count).map { _ in uniform(range) }
  }

  mutating func bytes(_ count: Int) -> [UInt8] {
    (0..<count).map { _ in UInt8(truncatingIfNeeded: next() >> 32) }
  }
}

/// Memory of 64-byte alignment, as packed weights and pages have it.
final class Aligned {
  let pointer: UnsafeMutableRawPointer
  let count: Int

  init(bytes count: Int) {
    pointer = .allocate(byteCount: max(count, 64), alignment: 64)
    pointer.initializeMemory(as: UInt8.self, repeating: 0, count: max(count, 64))
    self.count = count
  }

  deinit { pointer.deallocate() }
}

/// Columns, bytes and the offsets of the f16 factors of one GGUF block.
func blockLayout(_ type: kindred_type) -> (columns: Int, bytes: Int, factors: [Int]) {
  switch type {
  case KINDRED_Q4_0: (32, 18, [0])
  case KINDRED_Q4_1: (32, 20, [0, 2])
  case KINDRED_Q5_0: (32, 22, [0])
  case KINDRED_Q5_1: (32, 24, [0, 2])
  case KINDRED_Q8_0: (32, 34, [0])
  case KINDRED_Q2_K: (256, 84, [80, 82])
  case KINDRED_Q3_K: (256, 110, [108])
  case KINDRED_Q4_K: (256, 144, [0, 2])
  case KINDRED_Q5_K: (256, 176, [0, 2])
  case KINDRED_Q6_K: (256, 210, [208])
  case KINDRED_F32: (1, 4, [])
  default: (1, 2, [0])
  }
}

/// Where the quants of one GGUF block lie.
func quantBytes(_ type: kindred_type) -> Range<Int> {
  switch type {
  case KINDRED_Q6_K: 0..<192
  case KINDRED_Q3_K: 0..<96
  case KINDRED_Q2_K: 16..<80
  case KINDRED_Q4_K, KINDRED_Q5_K: 16..<blockLayout(type).bytes
  default: 2 * blockLayout(type).factors.count..<blockLayout(type).bytes
  }
}

/// Weights in GGUF's layout, the same packed, and the same as float.
final class Weights {
  let type: kindred_type
  let rows: Int
  let columns: Int
  let panels: Aligned
  private(set) var values: [Float]

  var panelCount: Int { (rows + 31) / 32 }

  /// Random weights; with `quants`, each byte of their quants is that one.
  init(_ type: kindred_type, rows: Int, columns: Int, seed: UInt64, quants: UInt8? = nil) {
    self.type = type
    self.rows = rows
    self.columns = columns
    var random = Random(seed: seed)
    let layout = blockLayout(type)
    let rowBytes = columns / layout.columns * layout.bytes
    var source = random.bytes(rows * rowBytes)
    for start in stride(from: 0, to: source.count, by: layout.bytes) {
      if let quants {
        for i in quantBytes(type) { source[start + i] = quants }
      }
      for offset in layout.factors {
        // Between 2^-8 and 2^-6 as f16 and about as small as bf16, of either sign.
        let high = UInt8(truncatingIfNeeded: random.next()) & 0x87 | 0x1c
        source[start + offset + 1] = type == KINDRED_BF16 ? high & 0x81 | 0x3c : high
      }
      if type == KINDRED_F32 {
        withUnsafeBytes(of: random.uniform(-1...1)) { source.replaceSubrange(start..<start + 4, with: $0) }
      }
    }
    values = [Float](repeating: 0, count: rows * columns)
    kindred_dequantize(type, source, values.count, &values)
    let panelBytes = kindred_panel_bytes(type, columns)
    panels = Aligned(bytes: (rows + 31) / 32 * panelBytes)
    for panel in 0..<panelCount {
      source.withUnsafeBytes {
        kindred_pack_panel(
          type, $0.baseAddress! + panel * 32 * rowBytes, min(32, rows - panel * 32), columns,
          panels.pointer + panel * panelBytes)
      }
    }
  }
}

/// Activations and their int8 form, at addresses that are aligned for their element only.
final class Activations {
  let rows: Int
  let columns: Int
  let padded: Int
  private let storage: [Aligned]
  private(set) var contract: kindred_activations

  var quants: UnsafeMutablePointer<Int8> { .init(mutating: contract.quants) }
  /// The low parts of 16-bit activations.
  var low: UnsafeMutablePointer<Int8>? { contract.low.map { .init(mutating: $0) } }
  var blocks: UnsafeMutablePointer<kindred_activation_block> { .init(mutating: contract.blocks) }

  init(_ values: [Float], columns: Int, by set: InstructionSet, wide: Bool = false) {
    let rows = values.count / columns
    let padded = (columns + 63) / 64 * 64
    storage = [values.count * 4, rows * padded, rows * padded / 2, rows * padded].map {
      Aligned(bytes: $0 + 64)
    }
    let floats = (storage[0].pointer + 4).assumingMemoryBound(to: Float.self)
    floats.update(from: values, count: values.count)
    self.rows = rows
    self.columns = columns
    self.padded = padded
    contract = kindred_activations(
      columns: columns, values: floats,
      quants: (storage[1].pointer + 1).assumingMemoryBound(to: Int8.self),
      low: wide ? (storage[3].pointer + 3).assumingMemoryBound(to: Int8.self) : nil,
      blocks: (storage[2].pointer + 4).assumingMemoryBound(to: kindred_activation_block.self))
    for row in 0..<rows {
      set.kernels.quantize(
        floats + row * columns, columns, quants + row * padded, low.map { $0 + row * padded },
        blocks + row * padded / 32)
    }
  }

  /// Element (row, k) as an integer.
  func integer(_ row: Int, _ k: Int) -> Int {
    let high = Int(quants[row * padded + k])
    return low.map { 256 * high + Int($0[row * padded + k]) } ?? high
  }

  /// Element (row, k) as the quantised product sees it, or as it was.
  func value(_ row: Int, _ k: Int, quantized: Bool) -> Double {
    guard quantized else { return Double(contract.values[row * columns + k]) }
    return Double(blocks[row * padded / 32 + k / 32].scale) * Double(integer(row, k))
  }
}

extension InstructionSet {
  /// The product of all rows, [rows of a, rows of weights], with whatever `out` held where it accumulates.
  func multiply(
    _ weights: Weights, _ a: Activations, rows: Range<Int>? = nil, bias: [Float]? = nil,
    onto out: [Float]? = nil, rescaled: Bool = false
  ) -> [Float] {
    let rows = rows ?? 0..<a.rows
    let multiply = rescaled ? kernels.multiply_rescaled : kernels.multiply
    var result = out ?? [Float](repeating: .nan, count: rows.count * weights.rows)
    var contract = a.contract
    contract.values += rows.lowerBound * a.columns
    contract.quants += rows.lowerBound * a.padded
    contract.low = contract.low.map { $0 + rows.lowerBound * a.padded }
    contract.blocks += rows.lowerBound * a.padded / 32
    (bias ?? []).withUnsafeBufferPointer {
      multiply!(
        weights.type, weights.panels.pointer, 0, weights.panelCount, weights.rows, &contract, rows.count,
        bias == nil ? nil : $0.baseAddress, out != nil, &result, weights.rows)
    }
    return result
  }
}

/// Whether two arrays hold the same bits.
func sameBits(_ a: [Float], _ b: [Float]) -> Bool { a.map(\.bitPattern) == b.map(\.bitPattern) }
