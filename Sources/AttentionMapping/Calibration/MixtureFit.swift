// Which small heads a unit of the large model borrows, and how much of each: a dictionary of k heads for all query
// heads of a KV head, chosen one after the other by what each leaves of the error, then exchanged while that helps.
// Weights are solved anew for every dictionary that is tried, under the bounds that hold when the plan runs.

import KindredAttention

/// Sums over calibration rows from which a unit's mixture is solved. For query head i, candidate c is the vector C_ic
/// of what the unit's output gains, at weight 1, and T_i is what it should gain (`CandidateSums.swift` says of what).
package struct UnitSums: Sendable, Equatable {
  /// Candidates: all heads of the small model.
  package let candidates: Int
  /// ⟨C_ia, C_ib⟩ by query head, `[R][candidates, candidates]`.
  package var gram: [[Float]]
  /// ⟨C_ia, T_i⟩, `[R][candidates]`.
  package var cross: [[Float]]
  /// ⟨T_i, T_i⟩, `[R]`.
  package var square: [Float]

  package init(candidates: Int, queryHeads: Int) {
    self.candidates = candidates
    gram = Array(repeating: Array(repeating: 0, count: candidates * candidates), count: queryHeads)
    cross = Array(repeating: Array(repeating: 0, count: candidates), count: queryHeads)
    square = Array(repeating: 0, count: queryHeads)
  }
}

/// A unit's mixture as solved.
package struct MixtureFit: Sendable, Codable, Equatable {
  /// Candidates in use, ascending.
  package var dictionary: [Int]
  /// `[R][k]`.
  package var weights: [[Float]]
  /// The share of Σ_i gain_i ‖T_i‖² that is left.
  package var error: Double

  /// Chooses at most `size` candidates.
  ///
  /// - Parameters:
  ///   - sums: over calibration rows.
  ///   - gains: what an error of each query head's output counts, `[R]`.
  ///   - size: k, at least 1.
  ///   - sum: what each query head's weights add up to.
  package init(_ sums: UnitSums, gains: [Double], size: Int, sum: MixtureProblem.Sum) {
    let search = DictionarySearch(sums: sums, gains: gains, sum: sum)
    var chosen: [Int] = []
    var best = Double.infinity
    for _ in 0..<min(size, sums.candidates) {
      guard let next = search.best(beside: chosen), next.objective < best - 1e-6 * search.scale else { break }
      chosen.append(next.candidate)
      best = next.objective
    }
    // One head at a time is given up for a better one; two rounds find nearly all there is to find.
    for round in 0..<2 where chosen.count > 1 {
      var improved = false
      for position in chosen.indices {
        var others = chosen
        others.remove(at: position)
        guard let next = search.best(beside: others), next.objective < best - 1e-6 * search.scale else { continue }
        chosen = others + [next.candidate]
        best = next.objective
        improved = true
      }
      if !improved || round == 1 { break }
    }
    let weights = (0..<gains.count).map { search.weights(chosen, head: $0) }
    let used = chosen.indices.filter { index in weights.contains { $0[index] > 0 } }
      .sorted { chosen[$0] < chosen[$1] }
    dictionary = used.map { chosen[$0] }
    self.weights = weights.map { row in used.map { Float(row[$0]) } }
    error = 1 + best / search.scale
  }
}

/// Dictionaries and what they leave of the error.
private struct DictionarySearch {
  let sums: UnitSums
  let gains: [Double]
  let sum: MixtureProblem.Sum
  /// Σ_i gain_i ‖T_i‖².
  let scale: Double

  init(sums: UnitSums, gains: [Double], sum: MixtureProblem.Sum) {
    self.sums = sums
    self.gains = gains
    self.sum = sum
    scale = max(1e-300, zip(gains, sums.square).reduce(0) { $0 + $1.0 * Double($1.1) })
  }

  /// The candidate that leaves least beside `others`; the first one among equals.
  func best(beside others: [Int]) -> (candidate: Int, objective: Double)? {
    var best: (candidate: Int, objective: Double)?
    for candidate in 0..<sums.candidates where !others.contains(candidate) {
      let objective = objective(others + [candidate])
      if objective < best?.objective ?? .infinity { best = (candidate, objective) }
    }
    return best
  }

  /// Σ_i gain_i (‖T_i − Σ_j w_ij C_ij‖² − ‖T_i‖²) at the best weights.
  private func objective(_ dictionary: [Int]) -> Double {
    gains.indices.reduce(0) { total, head in
      let problem = problem(dictionary, head: head)
      return total + gains[head] * problem.objective(problem.solve(sum))
    }
  }

  func weights(_ dictionary: [Int], head: Int) -> [Double] { problem(dictionary, head: head).solve(sum) }

  private func problem(_ dictionary: [Int], head: Int) -> MixtureProblem {
    let count = sums.candidates
    var gram: [Double] = []
    gram.reserveCapacity(dictionary.count * dictionary.count)
    for row in dictionary {
      for column in dictionary { gram.append(Double(sums.gram[head][row * count + column])) }
    }
    return MixtureProblem(gram: gram, target: dictionary.map { Double(sums.cross[head][$0]) })
  }
}
