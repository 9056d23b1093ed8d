// Products with weights that were rounded once more, against the exact ones: what the rounding may cost, and no more.
import CKindredKernels
import Testing

@Suite struct RescaledMultiplyTests {
  static let sets = InstructionSet.available.filter { $0.kernels.multiply_rescaled != nil }

  /// The largest |weight| of each chunk of 256 columns of a row, over 127: about the width of a step of the bytes.
  static func steps(_ weights: Weights, row: Int) -> [Float] {
    let values = weights.values[row * weights.columns..<(row + 1) * weights.columns]
    return stride(from: values.startIndex, to: values.endIndex, by: 256).map {
      values[$0..<min($0 + 256, values.endIndex)].reduce(0) { max($0, abs($1)) } / 127
    }
  }

  /// Checks products against the definition: no error above one step of each weight, and, over all, errors of numbers
  /// rounded to the nearest, √(1/12) steps, which sum as independent ones do, or `excess` times as much.
  static func check(_ product: [Float], _ weights: Weights, _ a: Activations, excess: Double) {
    var (squares, expected) = (0.0, 0.0)
    for r in 0..<weights.rows {
      let steps = steps(weights, row: r)
      for i in 0..<a.rows {
        var (sum, most, variance) = (0.0, 1e-4, 0.0)
        for k in 0..<weights.columns {
          let (x, step) = (a.value(i, k, quantized: true), Double(steps[k / 256]))
          sum += x * Double(weights.values[r * weights.columns + k])
          most += abs(x) * step
          variance += x * x * step * step / 12
        }
        let error = Double(product[i * weights.rows + r]) - sum
        #expect(abs(error) <= most, "type \(weights.type.rawValue), (\(i), \(r)): off by \(error), steps of \(most)")
        squares += error * error
        expected += variance
      }
    }
    let label = "type \(weights.type.rawValue), \(weights.columns) columns: \((squares / expected).squareRoot())"
    #expect(squares <= excess * excess * expected, "\(label)")
    // Less would not be rounded to bytes; few bits in few groups may meet their multiples.
    #expect(squares >= 0.1 * expected, "\(label)")
  }

  @Test(arguments: sets)
  func everyTypeIsOffByRoundingOnly(_ set: InstructionSet) {
    for type in quantizedTypes {
      for columns in MultiplyTests.columns(type) {
        let weights = Weights(type, rows: columns == 96 ? 70 : 33, columns: columns, seed: 1)
        var random = Random(seed: 2)
        let a = Activations(random.values(9 * columns), columns: columns, by: set)
        Self.check(set.multiply(weights, a, rescaled: true), weights, a, excess: 1.5)
      }
    }
  }

  /// Rounding towards anything but the nearest would add up here, to 55 times as much; equal quants of a group, which
  /// are off by the same, to twice as much.
  @Test(arguments: sets)
  func roundingHasNoDirection(_ set: InstructionSet) {
    for type in quantizedTypes {
      let weights = Weights(type, rows: 70, columns: 1024, seed: 3)
      for value: Float in [1, -1] {
        let a = Activations([Float](repeating: value, count: 1024), columns: 1024, by: set)
        Self.check(set.multiply(weights, a, rescaled: true), weights, a, excess: 3)
      }
    }
  }

  @Test(arguments: sets)
  func biasAndWhatWasThereAreAdded(_ set: InstructionSet) {
    let weights = Weights(KINDRED_Q4_K, rows: 45, columns: 256, seed: 4)
    var random = Random(seed: 5)
    let a = Activations(random.values(8 * 256), columns: 256, by: set)
    let bias = random.values(45)
    let before = random.values(8 * 45)
    let plain = set.multiply(weights, a, rescaled: true)
    let all = set.multiply(weights, a, bias: bias, onto: before, rescaled: true)
    for i in all.indices { #expect(abs(all[i] - (plain[i] + bias[i % 45] + before[i])) <= 1e-5) }
  }

  /// The same bits whatever other rows share the call, over the borders of tiles and blocks of rows.
  @Test(arguments: sets)
  func rowsDoNotDependOnTheBatch(_ set: InstructionSet) {
    for type in quantizedTypes {
      let columns = blockLayout(type).columns == 256 ? 512 : 288
      let weights = Weights(type, rows: 40, columns: columns, seed: 6)
      var random = Random(seed: 7)
      let a = Activations(random.values(523 * columns), columns: columns, by: set)
      let whole = set.multiply(weights, a, rescaled: true)
      for rows in [0..<1, 0..<4, 5..<11, 500..<523, 3..<9, 515..<518] {
        let part = set.multiply(weights, a, rows: rows, rescaled: true)
        #expect(sameBits(part, Array(whole[rows.lowerBound * 40..<rows.upperBound * 40])), "\(type.rawValue) \(rows)")
      }
    }
  }

  @Test(arguments: sets, [Float.nan, .infinity, -.infinity])
  func badActivationsShow(_ set: InstructionSet, _ bad: Float) {
    for type in quantizedTypes {
      let weights = Weights(type, rows: 32, columns: 512, seed: 8)
      var random = Random(seed: 9)
      var values = random.values(2 * 512)
      values[300] = bad
      let product = set.multiply(weights, Activations(values, columns: 512, by: set), rescaled: true)
      #expect(product[..<32].allSatisfy { !$0.isFinite }, "type \(type.rawValue)")
      #expect(product[32...].allSatisfy { $0.isFinite }, "type \(type.rawValue)")
    }
  }

  /// A scale that is no number shows in its row and in no other; scales of zero give zero.
  @Test(arguments: sets)
  func badScalesShow(_ set: InstructionSet) {
    let weights = Weights(KINDRED_Q8_0, rows: 32, columns: 64, seed: 10)
    var random = Random(seed: 11)
    let a = Activations(random.values(64), columns: 64, by: set)
    // Of each of the two blocks: the quants, then the scales as F16.
    let block = 32 * 32
    let scales = [0, block + 64].map { (weights.panels.pointer + $0 + block).assumingMemoryBound(to: UInt16.self) }
    scales[0][3] = 0x7e00  // NaN
    scales[1][5] = 0xfc00  // −∞
    scales[0][7] = 0
    scales[1][7] = 0
    let product = set.multiply(weights, a, rescaled: true)
    for r in 0..<32 { #expect(product[r].isFinite == (r != 3 && r != 5), "row \(r): \(product[r])") }
    #expect(product[7] == 0)
  }
}
