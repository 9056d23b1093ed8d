// How long the near window of each unit is: longer where mapping the unit costs more.
//
// What a unit's far positions cost is taken to fall with the positions w that it keeps as it would if attention thinned
// out with distance: c (1 − w/C)² / w in a context of C. Σ_u c_u (1 − w_u/C)² / w_u under a given Σ_u w_u is least where
// all c_u (1/w_u² − 1/C²) are the same, that is w_u = C / √(1 + λ / c_u).

import Foundation

/// Divides kept positions among units.
package struct WindowSpread {
  /// What mapping each unit costs without what rounding does.
  private let costs: [Double]
  private let context: Int
  private let shortest: Int

  /// The share of a unit's measured KL that is taken for rounding, of the least that any unit up to its layer has:
  /// mapping a unit changes how activations are rounded from its layer on.
  private static var roundingShare: Double { 0.9 }
  /// Units that would keep this share of all positions keep all.
  private static var nearlyAll: Double { 7.0 / 8 }

  /// - Parameters:
  ///   - measured: the KL that mapping each unit alone causes, lower layers first.
  ///   - context: the positions of a sequence.
  ///   - shortest: the fewest positions that a unit keeps.
  package init(measured: [Double], context: Int, shortest: Int) {
    var least = Double.infinity
    costs = measured.map { cost in
      least = max(0, min(least, cost))
      return max(cost - Self.roundingShare * least, .leastNormalMagnitude)
    }
    self.context = context
    self.shortest = min(shortest, context)
  }

  /// The positions that each unit keeps, at most `mean` on average; `nil` for all.
  ///
  /// - Precondition: `mean` is at least the shortest that a unit keeps.
  package func kept(mean: Double) -> [Int?] {
    // The logarithm of λ, between one that keeps everything and one that keeps as little as is allowed.
    var (low, high) = (-800.0, 800.0)
    func fits(_ logarithm: Double) -> Bool {
      let total = kept(logarithm).reduce(0) { $0 + ($1 ?? context) }
      return Double(total) <= mean * Double(costs.count)
    }
    if fits(low) { return kept(low) }
    while high - low > 1e-6 {
      let middle = (low + high) / 2
      if fits(middle) { high = middle } else { low = middle }
    }
    return kept(high)
  }

  private func kept(_ logarithm: Double) -> [Int?] {
    costs.map { cost in
      let share = 1 / (1 + exp(logarithm - log(cost))).squareRoot()
      return share >= Self.nearlyAll ? nil : max(shortest, Int(share * Double(context)))
    }
  }
}
