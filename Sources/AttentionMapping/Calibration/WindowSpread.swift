// How long the near window of each unit is: longer where mapping the unit costs more.

/// Lengths of near windows that are a given one on average.
package enum WindowSpread {
  /// The shortest window that is given, unless all are shorter.
  private static var shortest: Int { 16 }
  /// The longest, as a multiple of the average.
  private static var longest: Int { 4 }

  /// A length for each unit, in proportion to the root of its cost.
  ///
  /// - Parameters:
  ///   - costs: the KL that mapping each unit alone causes.
  ///   - mean: what the lengths are on average at most.
  package static func lengths(costs: [Double], mean: Int) -> [Int] {
    guard costs.count > 1, let least = costs.min() else { return costs.map { _ in mean } }
    // What rounding costs any unit, which no window mends: the estimate without bias for costs that lie exponentially
    // above it.
    let rounding = max(0, least - (costs.reduce(0, +) / Double(costs.count) - least) / Double(costs.count - 1))
    let weights = costs.map { max(0, $0 - rounding).squareRoot() }
    guard let heaviest = weights.max(), heaviest > 0 else { return costs.map { _ in mean } }
    func lengths(_ factor: Double) -> [Int] {
      weights.map { min(max(Int(factor * $0 / heaviest), min(shortest, mean)), longest * mean) }
    }
    // The largest factor that keeps to the average; twice as large in each step, then by halves.
    var (low, high) = (0.0, Double(longest * mean))
    func fits(_ factor: Double) -> Bool { lengths(factor).reduce(0, +) <= mean * costs.count }
    while fits(high), high < 1e9 { (low, high) = (high, 2 * high) }
    while high - low > 0.5 {
      let middle = (low + high) / 2
      if fits(middle) { low = middle } else { high = middle }
    }
    return lengths(low)
  }
}
