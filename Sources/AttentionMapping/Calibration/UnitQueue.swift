// In which order units are mapped: who is measured in a round, and who is taken after it.

/// Units that are taken, and those that are left in the order in which they come next by what is known.
///
/// The first round measures all units, later ones only those that come next: twice as many as are taken between
/// measurements, which is a quarter of all.
package struct UnitQueue: Sendable {
  /// Units that are taken, each with the KL expected with it and all before it.
  package private(set) var taken: [(unit: Int, divergence: Double)] = []
  /// The others.
  package private(set) var waiting: [Int]
  private let roundSize: Int

  package init(units: Int) {
    waiting = Array(0..<units)
    roundSize = max(1, (units + 3) / 4)
  }

  /// The units to measure beside those that are taken, ascending.
  package var contenders: [Int] { waiting.prefix(taken.isEmpty ? waiting.count : 2 * roundSize).sorted() }

  /// Takes the best of a round, at most `most`.
  ///
  /// - Parameter measured: the ``contenders`` beside those that are taken.
  package mutating func take(_ measured: UnitMeasurements, most: Int) {
    let order = measured.order().map { (unit: measured.candidates[$0.index], divergence: $0.divergence) }
    let count = min(roundSize, most)
    waiting = order.dropFirst(count).map(\.unit) + waiting.dropFirst(order.count)
    taken += order.prefix(count)
  }

  /// The number of units that each round measures, for `wanted` of `units` to be taken in the end.
  package static func rounds(units: Int, wanted: Int) -> [Int] {
    let size = UnitQueue(units: units).roundSize
    return stride(from: 0, to: wanted, by: size).map { $0 == 0 ? units : min(units - $0, 2 * size) }
  }
}
