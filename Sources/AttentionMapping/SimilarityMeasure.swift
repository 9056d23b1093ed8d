// How alike two attention maps are, by each of the measures of IAM's Table 1 (arXiv 2507.11953).
//
// Every measure follows from a few sums over the entries of the lower triangle, so that maps can be compared block of
// rows by block of rows and none is kept. Checked against NumPy and SciPy (`Tests/AttentionMappingTests`).

/// The measure by which attention maps are compared, over the entries at and below the diagonal.
public enum SimilarityMeasure: String, Sendable, Hashable, CaseIterable, Codable {
  /// ⟨A, A'⟩ / (‖A‖ ‖A'‖).
  case cosine
  /// Pearson's correlation of the entries.
  case pearson
  /// Σ |A − A'|: a distance.
  case minkowski1 = "minkowski-1"
  /// ‖A − A'‖: a distance.
  case minkowski2 = "minkowski-2"
  /// The cosine decides, and the small model's rows are rescaled to the large map's norm.
  case cosineNorm = "cosine-norm"

  /// Whether less is more alike.
  public var isDistance: Bool { self == .minkowski1 || self == .minkowski2 }
}

/// Sums over the entries of some large heads' maps and of all small ones, from which a measure of each pair follows.
package struct SimilaritySums: Sendable, Hashable {
  /// Of one map: Σ a and Σ a².
  struct Moments: Sendable, Hashable {
    var sum = 0.0
    var squares = 0.0
  }

  package let measure: SimilarityMeasure
  /// Heads of the large model; those of one layer stand together.
  package let largeCount: Int
  /// Heads of the small model, by layer and head.
  package let smallCount: Int
  /// Entries of each map.
  var entries = 0
  var large: [Moments]
  var small: [Moments]
  /// `[largeCount][smallCount]`: Σ ab; for a distance Σ |a − b| or Σ (a − b)².
  var pairs: [Double]

  init(measure: SimilarityMeasure, largeCount: Int, smallCount: Int) {
    self.measure = measure
    self.largeCount = largeCount
    self.smallCount = smallCount
    large = Array(repeating: Moments(), count: largeCount)
    small = Array(repeating: Moments(), count: smallCount)
    pairs = Array(repeating: 0, count: largeCount * smallCount)
  }

  /// Adds the sums over other rows of the same maps.
  package mutating func add(_ other: SimilaritySums) {
    precondition((measure, largeCount, smallCount) == (other.measure, other.largeCount, other.smallCount))
    entries += other.entries
    for (index, moments) in other.large.enumerated() { Self.add(moments, to: &large[index]) }
    for (index, moments) in other.small.enumerated() { Self.add(moments, to: &small[index]) }
    for (index, pair) in other.pairs.enumerated() { pairs[index] += pair }
  }

  private static func add(_ moments: Moments, to total: inout Moments) {
    total.sum += moments.sum
    total.squares += moments.squares
  }

  /// How alike two maps are; 0 for a correlation with a map whose entries are all the same.
  package func value(_ largeHead: Int, _ smallHead: Int) -> Double {
    let (a, b) = (large[largeHead], small[smallHead])
    let pair = pairs[largeHead * smallCount + smallHead]
    switch measure {
    case .cosine, .cosineNorm: return pair / (a.squares * b.squares).squareRoot()
    case .pearson:
      let count = Double(entries)
      let variances = (a.squares - a.sum * a.sum / count, b.squares - b.sum * b.sum / count)
      guard variances.0 > 0, variances.1 > 0 else { return 0 }
      return (pair - a.sum * b.sum / count) / (variances.0 * variances.1).squareRoot()
    case .minkowski1: return pair
    case .minkowski2: return pair.squareRoot()
    }
  }

  /// The most alike small head of a large one; the first among equals.
  package func best(_ largeHead: Int) -> Int {
    var best = 0
    var bestValue = value(largeHead, 0)
    for head in 1..<max(1, smallCount) {
      let value = value(largeHead, head)
      if measure.isDistance ? value < bestValue : value > bestValue { (best, bestValue) = (head, value) }
    }
    return best
  }

  /// ‖A‖ / ‖A'‖.
  func normRatio(_ largeHead: Int, _ smallHead: Int) -> Double {
    (large[largeHead].squares / small[smallHead].squares).squareRoot()
  }

  /// The mean, over the large heads in a range, of the similarity to the most alike small head.
  package func meanBest(_ largeHeads: Range<Int>) -> Double {
    largeHeads.reduce(0) { $0 + value($1, best($1)) } / Double(largeHeads.count)
  }
}
