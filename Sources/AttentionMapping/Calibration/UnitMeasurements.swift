// Which units to map: the divergence of a set of units from what was measured of each unit beside a base that is mapped
// already, and of pairs.
//
// With p the unmapped prediction, and r_u the change that mapping u makes in the logarithm of the prediction, the
// divergence of small changes is KL ≈ ½ E_p (Σ r_u)²: a square form in the units. Single units are measured exactly;
// what two of them make together is 2·½ E_p r_u r_v.

/// What was measured of units beside a base.
package struct UnitMeasurements: Sendable, Equatable {
  /// Units that are mapped in every measurement.
  package var base: [Int]
  /// KL of the base alone, in nats.
  package var baseDivergence: Double
  /// The units that were measured.
  package var candidates: [Int]
  /// KL of the base and each candidate.
  package var divergences: [Double]
  /// ½ E_p r_u r_v, `[candidates][candidates]`.
  package var pairs: [[Double]]

  package init(
    base: [Int], baseDivergence: Double, candidates: [Int], divergences: [Double], pairs: [[Double]]
  ) {
    self.base = base
    self.baseDivergence = baseDivergence
    self.candidates = candidates
    self.divergences = divergences
    self.pairs = pairs
  }

  /// The KL expected of the base with the candidates at `indices`.
  package func predicted(_ indices: [Int]) -> Double {
    var total = baseDivergence
    for (number, index) in indices.enumerated() {
      total += divergences[index] - baseDivergence
      for other in indices[..<number] { total += 2 * pairs[index][other] }
    }
    return total
  }

  /// Candidates in the order in which they are best added: the one that raises the expected KL least comes next, the
  /// first one among equals.
  ///
  /// - Returns: their indices, and the KL expected with each and all before it.
  package func order() -> [(index: Int, divergence: Double)] {
    var remaining = Array(candidates.indices)
    var rise = candidates.indices.map { divergences[$0] - baseDivergence }
    var total = baseDivergence
    var order: [(index: Int, divergence: Double)] = []
    while let position = remaining.indices.min(by: { rise[remaining[$0]] < rise[remaining[$1]] }) {
      let index = remaining.remove(at: position)
      total += rise[index]
      order.append((index, total))
      for other in remaining { rise[other] += 2 * pairs[index][other] }
    }
    return order
  }
}
