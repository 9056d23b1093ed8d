// Attention of many rows against its definition in double precision, for the sets that have it: accuracy where keys
// have a large part in common, extreme rows, and independence of the rows beside.
import CKindredKernels
import Foundation
import Testing

@Suite(.enabled(if: !InstructionSet.withStrips.isEmpty, "no instruction set here has attention of many rows"))
struct StripAttentionTests {
  /// A sequence's keys and values, which bf16 holds exactly, packed; and queries of its last rows.
  final class Sequence {
    let d: Int, heads: Int, length: Int, rows: Int
    let set: InstructionSet
    var key: [Float], value: [Float], query: [Float]
    private let keys: Aligned, values: Aligned
    let scale: Float = 0.25

    var columns: Int { (d + 31) / 32 * 32 }
    var first: Int { length - rows }

    init(_ set: InstructionSet, d: Int, heads: Int = 2, length: Int, rows: Int, change: (Sequence) -> Void = { _ in }) {
      (self.set, self.d, self.heads, self.length, self.rows) = (set, d, heads, length, rows)
      var random = Random(seed: 60)
      key = random.values(length * d, in: -64...64).map { $0.rounded() / 64 }
      value = random.values(length * d, in: -64...64).map { $0.rounded() / 64 }
      query = random.values(rows * heads * d)
      let pages = (length + 63) / 64
      keys = Aligned(bytes: pages * 256 * ((d + 31) / 32 * 32))
      values = Aligned(bytes: pages * 128 * ((d + 31) / 32 * 32))
      change(self)
      pack()
    }

    private func pack() {
      // Elements past the last position hold NaN.
      let stored = [Aligned(bytes: 64 * d * 2), Aligned(bytes: 64 * d * 2)]
      for page in 0..<(length + 63) / 64 {
        let count = min(64, length - page * 64)
        for memory in stored { memset(memory.pointer, 0xff, memory.count) }
        for slot in 0..<count {
          let start = (page * 64 + slot) * d
          set.kernels.store_key(KINDRED_BF16, Array(key[start..<start + d]), d, slot, stored[0].pointer)
          set.kernels.store_value(KINDRED_BF16, Array(value[start..<start + d]), d, slot, stored[1].pointer)
        }
        set.kernels.pack_key_tiles(
          KINDRED_BF16, stored[0].pointer, d, Self.elements(keys) + page * 128 * columns)
        set.kernels.pack_value_tiles(
          KINDRED_BF16, stored[1].pointer, count, d, Self.elements(values) + page * 64 * columns)
      }
    }

    private static func elements(_ memory: Aligned) -> UnsafeMutablePointer<UInt16> {
      memory.pointer.assumingMemoryBound(to: UInt16.self)
    }

    /// Outputs [rows, heads · d] and the log-sum-exp [rows, heads] of some rows.
    func attend(_ part: Range<Int>? = nil) -> (output: [Float], logSumExp: [Float]) {
      let part = part ?? 0..<rows
      var output = [Float](repeating: -9, count: part.count * heads * d)
      var logSumExp = [Float](repeating: -9, count: part.count * heads)
      let queries = Self.unaligned(query)
      let scratch = Aligned(bytes: KINDRED_TILE_SCRATCH_BYTES)
      output.withUnsafeMutableBufferPointer { output in
        logSumExp.withUnsafeMutableBufferPointer { logSumExp in
          var call = kindred_tile_attention(
            d: d, heads: heads, rows: part.count, first_position: first + part.lowerBound, scale: scale,
            query: Self.floats(queries) + part.lowerBound * heads * d, query_stride: heads * d,
            keys: Self.elements(keys), values: Self.elements(values), output: output.baseAddress,
            output_stride: heads * d, log_sum_exp: logSumExp.baseAddress, log_sum_exp_stride: heads)
          set.kernels.attend_tiles(&call, scratch.pointer)
        }
      }
      return (output, logSumExp)
    }

    /// The rows of head 0, with their log-sum-exp as a lent head's, times the values, [rows, d]; for two borrowers,
    /// side by side.
    func borrow(_ logSumExp: [Float]) -> [Float] {
      let queries = Self.unaligned(query)
      let statistic = Self.unaligned(logSumExp)
      let scratch = Aligned(bytes: KINDRED_TILE_SCRATCH_BYTES)
      var output = [Float](repeating: -9, count: rows * 2 * d)
      output.withUnsafeMutableBufferPointer { output in
        let targets = [output.baseAddress, output.baseAddress.map { $0 + d }]
        let sources = [UnsafePointer<UInt16>?](repeating: UnsafePointer(Self.elements(values)), count: 2)
        targets.withUnsafeBufferPointer { targets in
          sources.withUnsafeBufferPointer { sources in
            var call = kindred_tile_loan(
              lent_d: d, d: d, rows: rows, first_position: first, borrowers: 2, scale: scale,
              query: Self.floats(queries), query_stride: heads * d, log_sum_exp: Self.floats(statistic),
              log_sum_exp_stride: heads, keys: Self.elements(keys), values: sources.baseAddress,
              outputs: targets.baseAddress, output_stride: 2 * d)
            set.kernels.borrow_tiles(&call, scratch.pointer)
          }
        }
      }
      return output
    }

    /// A copy at an address that is aligned for its element only.
    private static func unaligned(_ values: [Float]) -> Aligned {
      let memory = Aligned(bytes: values.count * 4 + 4)
      floats(memory).update(from: values, count: values.count)
      return memory
    }

    private static func floats(_ memory: Aligned) -> UnsafeMutablePointer<Float> {
      (memory.pointer + 4).assumingMemoryBound(to: Float.self)
    }

    /// The output and log-sum-exp of one row and head, by definition.
    func expected(_ row: Int, _ head: Int) -> (output: [Double], logSumExp: Double) {
      let q = query[((row * heads + head) * d)..<((row * heads + head + 1) * d)].map(Double.init)
      let logits = (0...first + row).map { j in
        (0..<d).reduce(0.0) { $0 + q[$1] * Double(key[j * d + $1]) } * Double(scale)
      }
      let most = logits.max()!
      let weights = logits.map { exp($0 - most) }
      let sum = weights.reduce(0, +)
      let output = (0..<d).map { c in
        weights.indices.reduce(0.0) { $0 + weights[$1] / sum * Double(value[$1 * d + c]) }
      }
      return (output, most + log(sum))
    }

    /// The largest differences of outputs, borrowed ones too, and of the log-sum-exp over all rows; infinite where one is
    /// not a number.
    func errors(borrowing: Bool = true) -> (output: Double, logSumExp: Double) {
      let found = attend()
      let borrowed = borrowing ? borrow(found.logSumExp) : []
      var worst = (output: 0.0, logSumExp: 0.0)
      func larger(_ a: Double, _ b: Double) -> Double { b.isNaN ? .infinity : max(a, b) }
      for row in 0..<rows {
        for head in 0..<heads {
          let expected = expected(row, head)
          let statistic = Double(found.logSumExp[row * heads + head])
          worst.logSumExp = larger(worst.logSumExp, abs(statistic - expected.logSumExp))
          for c in 0..<d {
            var values = [found.output[(row * heads + head) * d + c]]
            if borrowing, head == 0 { values += [borrowed[row * 2 * d + c], borrowed[(row * 2 + 1) * d + c]] }
            for value in values { worst.output = larger(worst.output, abs(Double(value) - expected.output[c])) }
          }
        }
      }
      return worst
    }
  }

  @Test(arguments: InstructionSet.withStrips, [1, 15, 16, 17, 31, 33])
  func agreesWithItsDefinition(_ set: InstructionSet, rows: Int) {
    for d in [1, 20, 32, 48, 64, 100, 128, 256] {
      for length in [rows, rows + 50, rows + 300] {
        let errors = Sequence(set, d: d, length: length, rows: rows).errors()
        // Weights of one bf16; logits within what rounding to 16 bits moves them.
        #expect(errors.output < 4e-3, "d \(d), length \(length)")
        #expect(errors.logSumExp < 1e-3, "d \(d), length \(length)")
      }
    }
  }

  /// Biases of keys, as Qwen2.5 has them, make logits of hundreds that differ by little.
  @Test(arguments: InstructionSet.withStrips)
  func keepsAccuracyWhereKeysHaveALargePartInCommon(_ set: InstructionSet) {
    for (channels, offset) in [(20, Float(30)), (1, 200)] {
      let errors = Sequence(set, d: 64, length: 200, rows: 40) { s in
        for j in 0..<s.length {
          // Multiples of 1 / 2 at 30 and of 1 at 200 are exact in bf16.
          for c in 0..<channels {
            let unit: Float = channels == 1 ? 1 : 8
            s.key[j * s.d + c] = ((s.key[j * s.d + c] * 2 * unit).rounded() / unit + offset)
          }
        }
      }.errors()
      #expect(errors.output < 1e-2, "\(channels) channels")
      #expect(errors.logSumExp < 3e-2, "\(channels) channels")
    }
  }

  @Test(arguments: InstructionSet.withStrips)
  func aRowDoesNotDependOnTheRowsBeside(_ set: InstructionSet) {
    let sequence = Sequence(set, d: 48, length: 340, rows: 70)
    let whole = sequence.attend()
    for part in [0..<1, 0..<17, 5..<38, 69..<70, 33..<70] {
      let alone = sequence.attend(part)
      #expect(sameBits(alone.output, Array(whole.output[part.lowerBound * 96..<part.upperBound * 96])))
      #expect(sameBits(alone.logSumExp, Array(whole.logSumExp[part.lowerBound * 2..<part.upperBound * 2])))
    }
  }

  /// Rows of zeros, and of magnitudes whose squares leave the range of float.
  @Test(arguments: InstructionSet.withStrips, [Float(0), 0x1p-130, 0x1p-90, 0x1p90])
  func takesExtremeMagnitudes(_ set: InstructionSet, factor: Float) {
    let sequence = Sequence(set, d: 33, length: 100, rows: 20) { s in
      for c in 0..<33 {
        s.key[7 * 33 + c] *= factor
        for row in 0..<20 { s.query[(row * 2 + 1) * 33 + c] *= factor > 1 ? 1 / factor : factor }
      }
    }
    // With keys of 2^90 the softmax of head 0 is all at one position or nowhere near it; both are exact. A log-sum-exp
    // of that size has no digits left from which to recompute weights.
    let errors = sequence.errors(borrowing: factor <= 1)
    #expect(errors.output < 4e-3)
    if factor <= 1 { #expect(errors.logSumExp < 1e-3) }
  }

  @Test(arguments: InstructionSet.withStrips, [Float.nan, .infinity, -.infinity])
  func whatIsNotFiniteStaysInItsRows(_ set: InstructionSet, bad: Float) {
    let clean = Sequence(set, d: 40, length: 120, rows: 40)
    let good = clean.attend()
    // A query: its own row and head only.
    let query = Sequence(set, d: 40, length: 120, rows: 40) { $0.query[(21 * 2 + 1) * 40 + 3] = bad }.attend()
    for index in 0..<80 {
      let (found, before) = (query.output[index * 40..<index * 40 + 40], good.output[index * 40..<index * 40 + 40])
      if index == 43 {
        #expect(found.allSatisfy(\.isNaN) && query.logSumExp[index].isNaN)
      } else {
        #expect(sameBits(Array(found), Array(before)))
      }
    }
    // A key: the rows that see it.
    let key = Sequence(set, d: 40, length: 120, rows: 40) { $0.key[100 * 40 + 39] = bad }.attend()
    for row in 0..<40 {
      let (found, before) = (key.output[row * 80..<row * 80 + 80], good.output[row * 80..<row * 80 + 80])
      if row < 20 {
        #expect(sameBits(Array(found), Array(before)))
      } else {
        #expect(found.count(where: \.isNaN) == found.count, "row \(row)")
      }
    }
  }
}

extension InstructionSet {
  static let withStrips = available.filter { $0.kernels.attend_tiles != nil }
}
