// The weights of a mixture: least squares over few weights that are not negative (Lawson and Hanson, Solving Least
// Squares Problems, 1974, in terms of the Gram matrix), with or without a bound on their sum.
//
// Checked against the enumeration of all supports (`MixtureProblemTests`).

/// min over w ≥ 0 of wᵀHw − 2bᵀw, where H is the Gram matrix of candidates and b their products with the target: the
/// squared distance of the mixture to the target, less the target's own square.
package struct MixtureProblem {
  /// What the weights add up to.
  package enum Sum: Sendable {
    /// Exactly 1: rows of weights stay distributions.
    case one
    /// At most 1.
    case atMostOne
  }

  /// H, `[k, k]`, positive semidefinite.
  package var gram: [Double]
  /// b, `[k]`.
  package var target: [Double]

  package var count: Int { target.count }

  package init(gram: [Double], target: [Double]) {
    self.gram = gram
    self.target = target
  }

  /// wᵀHw − 2bᵀw.
  package func objective(_ weights: [Double]) -> Double {
    var value = 0.0
    for row in 0..<count where weights[row] != 0 {
      var product = -2 * target[row]
      for column in 0..<count { product += gram[row * count + column] * weights[column] }
      value += weights[row] * product
    }
    return value
  }

  /// The best weights. Equal problems have equal answers.
  package func solve(_ sum: Sum) -> [Double] {
    guard sum == .atMostOne else { return descend(isAffine: true) }
    let free = descend(isAffine: false)
    // Where the bound is broken without being asked for, the problem being convex, it holds with equality.
    return free.reduce(0, +) <= 1 ? free : descend(isAffine: true)
  }

  /// The active-set method: weights enter one at a time, steepest first, and leave where they would turn negative.
  /// With `isAffine` the weights sum to 1 throughout.
  private func descend(isAffine: Bool) -> [Double] {
    var weights = [Double](repeating: 0, count: count)
    var support: [Int] = []
    if isAffine, let best = firstMinimum({ gram[$0 * count + $0] - 2 * target[$0] }) {
      weights[best] = 1
      support = [best]
    }
    let scale = (0..<count).reduce(1e-300) { max($0, abs(target[$1]), gram[$1 * count + $1]) }
    // Each support is met once; the bound only guards against rounding.
    for _ in 0..<4 * (count + 1) {
      var slopes = [Double](repeating: 0, count: count)
      for index in 0..<count {
        var slope = target[index]
        for other in support { slope -= gram[index * count + other] * weights[other] }
        slopes[index] = slope
      }
      let level = isAffine ? support.reduce(0) { $0 + slopes[$1] } / Double(max(1, support.count)) : 0
      guard
        let entering = firstMinimum({ support.contains($0) ? .infinity : -slopes[$0] }),
        !support.contains(entering), slopes[entering] - level > 1e-10 * scale
      else { break }
      support.append(entering)
      guard settle(&weights, &support, isAffine: isAffine) else { break }
    }
    return weights
  }

  /// Moves to the best weights on `support`, dropping those that would turn negative. `false` where the newest member
  /// was dropped at once, so that nothing has been gained.
  private func settle(_ weights: inout [Double], _ support: inout [Int], isAffine: Bool) -> Bool {
    let newest = support[support.count - 1]
    while !support.isEmpty {
      let goal = minimum(on: support, isAffine: isAffine)
      var step = 1.0
      for (index, member) in support.enumerated() where goal[index] <= 0 {
        step = min(step, weights[member] / (weights[member] - goal[index]))
      }
      for (index, member) in support.enumerated() {
        weights[member] += step * (goal[index] - weights[member])
        if goal[index] <= 0, weights[member] <= 1e-12 { weights[member] = 0 }
      }
      if step == 1 { return true }
      support.removeAll { weights[$0] == 0 }
      if !support.contains(newest) { return false }
    }
    return false
  }

  /// The minimum over weights on `support` of any sign, by Gaussian elimination; with `isAffine` on the plane where
  /// they sum to 1.
  private func minimum(on support: [Int], isAffine: Bool) -> [Double] {
    let size = support.count + (isAffine ? 1 : 0)
    let width = size + 1
    var rows = [Double](repeating: 0, count: size * width)
    for (i, member) in support.enumerated() {
      for (j, other) in support.enumerated() { rows[i * width + j] = gram[member * count + other] }
      // Heads that are alike to the last digit share what they are given.
      rows[i * width + i] *= 1 + 1e-9
      rows[i * width + size] = target[member]
      if isAffine {
        rows[i * width + support.count] = 1
        rows[support.count * width + i] = 1
      }
    }
    if isAffine { rows[support.count * width + size] = 1 }
    for column in 0..<size {
      var pivot = column
      for row in column..<size where abs(rows[row * width + column]) > abs(rows[pivot * width + column]) { pivot = row }
      guard rows[pivot * width + column] != 0 else { continue }
      if pivot != column { for k in 0..<width { rows.swapAt(column * width + k, pivot * width + k) } }
      for row in 0..<size where row != column {
        let factor = rows[row * width + column] / rows[column * width + column]
        guard factor != 0 else { continue }
        for k in column..<width { rows[row * width + k] -= factor * rows[column * width + k] }
      }
    }
    return support.indices.map { index in
      let pivot = rows[index * width + index]
      return pivot == 0 ? 0 : rows[index * width + size] / pivot
    }
  }

  /// The first index at which `value` is smallest.
  private func firstMinimum(_ value: (Int) -> Double) -> Int? {
    var best: (index: Int, value: Double)?
    for index in 0..<count {
      let candidate = value(index)
      if candidate < best?.value ?? .infinity { best = (index, candidate) }
    }
    return best?.index
  }
}
