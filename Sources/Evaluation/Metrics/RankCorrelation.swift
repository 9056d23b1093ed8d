// Spearman's rank correlation. Checked against `scipy.stats.spearmanr` (`make_metrics.py`).

/// Spearman's ρ of pairs of numbers, -1 to 1; ranks of equal numbers are their mean.
///
/// - Returns: `nil` where it does not exist: of fewer than two pairs, or where either side is all the same.
public func spearman(_ first: [Double], _ second: [Double]) -> Double? {
  precondition(first.count == second.count, "\(first.count) and \(second.count) numbers")
  let (first, second) = (ranks(first), ranks(second))
  // The mean of ranks is the same whatever is tied.
  let mean = Double(first.count - 1) / 2
  var (both, squares) = (0.0, (0.0, 0.0))
  for (x, y) in zip(first, second) {
    both += (x - mean) * (y - mean)
    squares.0 += (x - mean) * (x - mean)
    squares.1 += (y - mean) * (y - mean)
  }
  guard squares.0 > 0, squares.1 > 0 else { return nil }
  return both / (squares.0 * squares.1).squareRoot()
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
