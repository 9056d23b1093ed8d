// Correlation of pairs of numbers: Pearson's, and Spearman's of their ranks. The latter is checked against
// `scipy.stats.spearmanr` (`make_metrics.py`).

/// Pearson's correlation, -1 to 1.
///
/// - Returns: `nil` where it does not exist: of fewer than two pairs, or where either side is all the same.
public func correlation(_ first: [Double], _ second: [Double]) -> Double? {
  func centred(_ values: [Double]) -> [Double] {
    let mean = values.reduce(0, +) / Double(values.count)
    return values.map { $0 - mean }
  }
  func product(_ a: [Double], _ b: [Double]) -> Double { zip(a, b).reduce(0) { $0 + $1.0 * $1.1 } }
  let (a, b) = (centred(first), centred(second))
  let norms = (product(a, a) * product(b, b)).squareRoot()
  return norms > 0 ? product(a, b) / norms : nil
}

/// Spearman's ρ, -1 to 1; ranks of equal numbers are their mean.
///
/// - Returns: `nil` where it does not exist, as of ``correlation(_:_:)``.
public func spearman(_ first: [Double], _ second: [Double]) -> Double? {
  precondition(first.count == second.count, "\(first.count) and \(second.count) numbers")
  return correlation(ranks(first), ranks(second))
}

/// The rank of each number, from 0.
private func ranks(_ values: [Double]) -> [Double] {
  let order = values.indices.sorted { values[$0] < values[$1] }
  var ranks = [Double](repeating: 0, count: values.count)
  var start = 0
  while start < order.count {
    var end = start + 1
    while end < order.count, values[order[end]] == values[order[start]] { end += 1 }
    for index in order[start..<end] { ranks[index] = Double(start + end - 1) / 2 }
    start = end
  }
  return ranks
}
