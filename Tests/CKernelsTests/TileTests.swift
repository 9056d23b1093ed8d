// Products in matrix tiles of every type against their definition in double precision, where the machine has tiles.
import CKindredKernels
import Testing

@Suite(.enabled(if: !InstructionSet.withTiles.isEmpty, "no instruction set of this machine has matrix tiles"))
struct TileTests {
  /// The types that tiles multiply.
  static let types = quantizedTypes + [KINDRED_BF16]

  /// Checks against Σ a · w in double. Rounding to bf16 moves each factor by at most 2^-9; dense bf16 weights are
  /// exact, and meet activations of twice the bits.
  static func check(
    _ product: [Float], _ weights: Weights, _ values: [Float], rows: Int, add: (Int, Int) -> Double = { _, _ in 0 }
  ) {
    let tolerance = weights.type == KINDRED_BF16 ? 0x1p-15 : 0x1p-8
    for i in 0..<rows {
      for r in 0..<weights.rows {
        var (sum, magnitude) = (add(i, r), abs(add(i, r)) * 1e-3 + 1e-4)
        for k in 0..<weights.columns {
          let term = Double(values[i * weights.columns + k]) * Double(weights.values[r * weights.columns + k])
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

  @Test(arguments: InstructionSet.withTiles, [1, 15, 16, 17, 31, 33, 48])
  func everyTypeEqualsItsDefinition(_ set: InstructionSet, rows: Int) {
    for type in Self.types {
      for columns in MultiplyTests.columns(type) + (type == KINDRED_BF16 ? [512 + 33] : [1024]) {
        let weights = Weights(type, rows: 33, columns: columns, seed: 1)
        var random = Random(seed: 2)
        let values = random.values(rows * columns)
        Self.check(set.multiplyTiles(weights, values, rows: rows), weights, values, rows: rows)
      }
    }
  }

  /// With the rest of the activations only the weights' own rounding remains.
  @Test(arguments: InstructionSet.withTiles)
  func restHalvesTheError(_ set: InstructionSet) {
    let weights = Weights(KINDRED_Q6_K, rows: 32, columns: 1024, seed: 14)
    var random = Random(seed: 15)
    let values = random.values(16 * 1024)
    func error(_ product: [Float]) -> Double {
      product.indices.reduce(0.0) { sum, index in
        let (i, r) = (index / 32, index % 32)
        let exact = (0..<1024).reduce(0.0) {
          $0 + Double(values[i * 1024 + $1]) * Double(weights.values[r * 1024 + $1])
        }
        return sum + (Double(product[index]) - exact) * (Double(product[index]) - exact)
      }
    }
    let alone = error(set.multiplyTiles(weights, values, rows: 16))
    #expect(error(set.multiplyTiles(weights, values, rows: 16, withRest: true)) < 0.7 * alone)
  }

  @Test(arguments: InstructionSet.withTiles)
  func biasAndWhatWasThereAreAdded(_ set: InstructionSet) {
    for type in [KINDRED_Q4_K, KINDRED_BF16] {
      let weights = Weights(type, rows: 45, columns: 256, seed: 3)
      var random = Random(seed: 4)
      let values = random.values(20 * 256)
      let bias = random.values(45)
      let before = random.values(20 * 45)
      Self.check(set.multiplyTiles(weights, values, rows: 20, bias: bias), weights, values, rows: 20) { _, r in
        Double(bias[r])
      }
      let sum = set.multiplyTiles(weights, values, rows: 20, bias: bias, onto: before)
      Self.check(sum, weights, values, rows: 20) { i, r in Double(bias[r]) + Double(before[i * 45 + r]) }
    }
  }

  /// More panels than share a pass, more rows than a block: each result is the same bits as alone.
  @Test(arguments: InstructionSet.withTiles)
  func resultsDoNotDependOnTheCall(_ set: InstructionSet) {
    let rows = 1100
    let weights = Weights(KINDRED_Q4_K, rows: 300, columns: 768, seed: 5)
    var random = Random(seed: 6)
    let values = random.values(rows * 768)
    let whole = set.multiplyTiles(weights, values, rows: rows)
    for count in [1, 16, 100, 512, 528] {
      let part = set.multiplyTiles(weights, values, rows: count)
      #expect(sameBits(part, Array(whole[..<(count * 300)])), "\(count) rows")
    }
    for panels in [0..<1, 3..<10, 9..<10] {
      let part = set.multiplyTiles(
        weights, values, rows: 40, onto: [Float](repeating: 7, count: 40 * 300), accumulates: false, panels: panels)
      for i in 0..<40 {
        for r in 0..<300 {
          let expected = panels.contains(r / 32) ? whole[i * 300 + r] : 7
          #expect(part[i * 300 + r].bitPattern == expected.bitPattern)
        }
      }
    }
  }

  @Test(arguments: InstructionSet.withTiles, [Float.nan, .infinity, -.infinity])
  func badActivationsShow(_ set: InstructionSet, _ bad: Float) {
    for type in Self.types {
      let weights = Weights(type, rows: 32, columns: 512, seed: 12)
      var random = Random(seed: 13)
      var values = random.values(20 * 512)
      values[300] = bad
      let product = set.multiplyTiles(weights, values, rows: 20)
      // A weight of zero hides an infinite activation from no one: 0 · ∞ is NaN.
      #expect(product[..<32].allSatisfy { !$0.isFinite }, "type \(type.rawValue)")
      #expect(product[32...].allSatisfy { $0.isFinite }, "type \(type.rawValue)")
    }
  }
}

extension InstructionSet {
  static let withTiles = available.filter { $0.kernels.multiply_tiles != nil }

  /// The product in tiles of the first `rows` rows, [rows, rows of weights].
  func multiplyTiles(
    _ weights: Weights, _ values: [Float], rows: Int, bias: [Float]? = nil, onto out: [Float]? = nil,
    accumulates: Bool? = nil, panels: Range<Int>? = nil, withRest: Bool? = nil
  ) -> [Float] {
    let columns = weights.columns
    let elements = (rows + 15) / 16 * ((columns + 31) / 32) * 512
    let tiles = Aligned(bytes: elements * 2)
    let rest = Aligned(bytes: elements * 2)
    let scratch = Aligned(bytes: KINDRED_TILE_SCRATCH_BYTES)
    var contract = kindred_tiles(
      columns: columns, tiles: tiles.pointer.assumingMemoryBound(to: UInt16.self),
      rest: withRest ?? (weights.type == KINDRED_BF16)
        ? UnsafePointer(rest.pointer.assumingMemoryBound(to: UInt16.self)) : nil)
    values.withUnsafeBufferPointer { values in
      for row in 0..<rows {
        kernels.pack_tile_row(
          values.baseAddress! + row * columns, 0, columns, columns, row,
          tiles.pointer.assumingMemoryBound(to: UInt16.self),
          rest.pointer.assumingMemoryBound(to: UInt16.self))
      }
    }
    var result = out ?? [Float](repeating: .nan, count: rows * weights.rows)
    let range = panels ?? 0..<weights.panelCount
    (bias ?? []).withUnsafeBufferPointer {
      kernels.multiply_tiles(
        weights.type, weights.panels.pointer, range.lowerBound, range.upperBound, weights.rows, &contract, rows,
        bias == nil ? nil : $0.baseAddress, accumulates ?? (out != nil), &result, weights.rows, scratch.pointer)
    }
    return result
  }
}
