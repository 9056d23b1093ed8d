// Packed products of every type and instruction set against their definition in double precision, and batch
// invariance bit for bit.
import CKindredKernels
import Testing

@Suite struct MultiplyTests {
  /// Columns: one block, an odd number of blocks, a whole superblock, more than one chunk of blocks.
  static func columns(_ type: kindred_type) -> [Int] {
    switch blockLayout(type).columns {
    case 1: [1, 20, 67]
    case 32: [32, 96, 288]
    default: [256, 768]
    }
  }

  /// Checks one product against Σ a · w in double; the error of float sums grows with Σ |a · w|.
  static func check(
    _ product: [Float], _ weights: Weights, _ a: Activations, within tolerance: Double = 2e-6,
    add: (Int, Int) -> Double
  ) {
    let quantized = blockLayout(weights.type).columns > 1
    for i in 0..<a.rows {
      for r in 0..<weights.rows {
        var (sum, magnitude) = (add(i, r), 1e-3)
        for k in 0..<weights.columns {
          let term = a.value(i, k, quantized: quantized) * Double(weights.values[r * weights.columns + k])
          sum += term
          magnitude += abs(term)
        }
        let found = Double(product[i * weights.rows + r])
        #expect(
          abs(found - sum) <= magnitude * tolerance,
          "type \(weights.type.rawValue), \(weights.columns) columns, (\(i), \(r)): \(found), not \(sum)")
      }
    }
  }

  @Test(arguments: InstructionSet.available)
  func everyTypeEqualsItsDefinition(_ set: InstructionSet) {
    for type in quantizedTypes + denseTypes {
      for columns in Self.columns(type) {
        let weights = Weights(type, rows: columns == 96 ? 70 : 33, columns: columns, seed: 1)
        var random = Random(seed: 2)
        let values = random.values(4 * columns)
        for wide in [false, true] {
          let a = Activations(values, columns: columns, by: set, wide: wide)
          for rows in 1...4 {
            let part = Activations(Array(values[..<(rows * columns)]), columns: columns, by: set, wide: wide)
            Self.check(set.multiply(weights, a, rows: 0..<rows), weights, part) { _, _ in 0 }
          }
        }
      }
    }
  }

  @Test(arguments: InstructionSet.available)
  func biasAndWhatWasThereAreAdded(_ set: InstructionSet) {
    for type in [KINDRED_Q4_K, KINDRED_BF16] {
      let weights = Weights(type, rows: 45, columns: 256, seed: 3)
      var random = Random(seed: 4)
      let a = Activations(random.values(8 * 256), columns: 256, by: set)
      let bias = random.values(45)
      let before = random.values(8 * 45)
      Self.check(set.multiply(weights, a, bias: bias), weights, a) { _, r in Double(bias[r]) }
      Self.check(set.multiply(weights, a, bias: bias, onto: before), weights, a) { i, r in
        Double(bias[r]) + Double(before[i * 45 + r])
      }
    }
  }

  /// All extremes of quants at once: the largest of each sign must not overflow 16- or 32-bit sums.
  @Test(arguments: InstructionSet.available)
  func extremeActivationsDoNotOverflow(_ set: InstructionSet) {
    let columns = 512
    for type in quantizedTypes {
      for quants in [nil, 0, 0xff, 0x7f, 0x80] as [UInt8?] {
        let weights = Weights(type, rows: 32, columns: columns, seed: 5, quants: quants)
        for pattern in [[1], [-1], [1, -1], [1, 1, -1, -1]] as [[Float]] {
          let values = (0..<columns).map { pattern[$0 % pattern.count] * 1e3 }
          for wide in [false, true] {
            let a = Activations(values, columns: columns, by: set, wide: wide)
            // Where all terms are alike, all sums round the same way.
            Self.check(set.multiply(weights, a), weights, a, within: 1e-5) { _, _ in 0 }
          }
        }
      }
    }
  }

  /// The result for a row is the same bits whatever other rows, and however many, share the call.
  @Test(arguments: InstructionSet.available)
  func rowsDoNotDependOnTheBatch(_ set: InstructionSet) {
    let rows = 33
    for type in quantizedTypes + denseTypes {
      let columns = blockLayout(type).columns == 256 ? 512 : 288
      let weights = Weights(type, rows: 40, columns: columns, seed: 6)
      var random = Random(seed: 7)
      let values = random.values(rows * columns)
      for wide in [false, true] {
        let a = Activations(values, columns: columns, by: set, wide: wide)
        let whole = set.multiply(weights, a)
        for batch in [1, 2, 3, 4, 5, 6, 7, 8, 9, 16] {
          for first in [0, 5, rows - batch] {
            let part = set.multiply(weights, a, rows: first..<first + batch)
            #expect(
              sameBits(part, Array(whole[first * 40..<(first + batch) * 40])),
              "type \(type.rawValue), rows \(first) to \(first + batch)")
          }
        }
      }
    }
  }

  /// More rows than any kernel takes in one block.
  @Test(arguments: InstructionSet.available)
  func manyRowsAgreeWithOne(_ set: InstructionSet) {
    let weights = Weights(KINDRED_Q4_0, rows: 8, columns: 64, seed: 8)
    var random = Random(seed: 9)
    let a = Activations(random.values(1100 * 64), columns: 64, by: set)
    let whole = set.multiply(weights, a)
    for row in [0, 63, 64, 511, 515, 516, 517, 1031, 1032, 1099] {
      let one = set.multiply(weights, a, rows: row..<row + 1)
      #expect(sameBits(one, Array(whole[row * 8..<row * 8 + 8])))
    }
  }

  @Test(arguments: InstructionSet.available)
  func panelRangesWriteOnlyTheirRows(_ set: InstructionSet) {
    let weights = Weights(KINDRED_Q8_0, rows: 100, columns: 64, seed: 10)
    var random = Random(seed: 11)
    let a = Activations(random.values(2 * 64), columns: 64, by: set)
    let whole = set.multiply(weights, a)
    var part = [Float](repeating: -7, count: 200)
    var contract = a.contract
    set.kernels.multiply(
      KINDRED_Q8_0, weights.panels.pointer, 1, 3, 100, &contract, 2, nil, false, &part, 100)
    for r in 0..<100 {
      #expect(part[r] == (32..<96 ~= r ? whole[r] : -7))
      #expect(part[100 + r] == (32..<96 ~= r ? whole[100 + r] : -7))
    }
  }

  @Test(arguments: InstructionSet.available, [Float.nan, .infinity, -.infinity])
  func badActivationsShow(_ set: InstructionSet, _ bad: Float) {
    for type in quantizedTypes + denseTypes {
      let weights = Weights(type, rows: 32, columns: 512, seed: 12)
      var random = Random(seed: 13)
      var values = random.values(2 * 512)
      values[300] = bad
      for wide in [false, true] {
        let product = set.multiply(weights, Activations(values, columns: 512, by: set, wide: wide))
        #expect(product[..<32].allSatisfy { !$0.isFinite }, "type \(type.rawValue)")
        #expect(product[32...].allSatisfy { $0.isFinite }, "type \(type.rawValue)")
      }
    }
  }
}
