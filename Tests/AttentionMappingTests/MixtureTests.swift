// The solver of mixtures against the enumeration of all supports, and the choice of dictionaries on made-up sums.

import Foundation
import KindredAttentionMapping
import KindredCompute
import Testing

/// A problem of `count` random candidates of `dimension` elements.
private func randomProblem(count: Int, dimension: Int, random: inout SeededGenerator) -> MixtureProblem {
  func vector() -> [Double] { (0..<dimension).map { _ in Double.random(in: -1...1, using: &random) } }
  let shared = vector()
  // Alike, as heads are.
  let candidates = (0..<count).map { _ in zip(vector(), shared).map { $0 + 1.5 * $1 } }
  let target = vector()
  func dot(_ a: [Double], _ b: [Double]) -> Double { zip(a, b).reduce(0) { $0 + $1.0 * $1.1 } }
  return MixtureProblem(
    gram: candidates.flatMap { row in candidates.map { dot(row, $0) } }, target: candidates.map { dot($0, target) })
}

extension MixtureProblem {
  /// The best weights of any sign on `support`, by Cramer's rule on the normal equations; with `isAffine` those that sum
  /// to 1.
  fileprivate func stationary(on support: [Int], isAffine: Bool) -> [Double]? {
    let size = support.count + (isAffine ? 1 : 0)
    var matrix = (0..<size).map { row in
      (0..<size).map { column -> Double in
        if row < support.count, column < support.count { return gram[support[row] * count + support[column]] }
        return row == column ? 0 : 1
      }
    }
    if !isAffine { matrix = matrix.map { Array($0.prefix(support.count)) } }
    let right = support.map { target[$0] } + (isAffine ? [1] : [])
    let whole = determinant(matrix)
    guard abs(whole) > 1e-9 else { return nil }
    var weights = [Double](repeating: 0, count: count)
    for (index, member) in support.enumerated() {
      var changed = matrix
      for row in 0..<size { changed[row][index] = right[row] }
      weights[member] = determinant(changed) / whole
    }
    return weights
  }

  private func determinant(_ matrix: [[Double]]) -> Double {
    guard let first = matrix.first else { return 1 }
    return first.indices.reduce(0) { total, column in
      let minor = matrix.dropFirst().map { row in row.indices.filter { $0 != column }.map { row[$0] } }
      return total + (column.isMultiple(of: 2) ? 1 : -1) * first[column] * determinant(minor)
    }
  }

  /// The least objective over all supports.
  fileprivate func enumerated(_ sum: Sum) -> Double {
    var best = sum == .one ? Double.infinity : 0
    for bits in 1..<1 << count {
      let support = (0..<count).filter { bits >> $0 & 1 == 1 }
      for isAffine in [true, false] where isAffine || sum == .atMostOne {
        guard let weights = stationary(on: support, isAffine: isAffine), weights.allSatisfy({ $0 >= -1e-12 }),
          weights.reduce(0, +) <= 1 + 1e-9
        else { continue }
        best = min(best, objective(weights))
      }
    }
    return best
  }
}

@Suite struct MixtureProblemTests {
  @Test(arguments: [MixtureProblem.Sum.one, .atMostOne], 1...5)
  func weightsAreTheBestOfAllSupports(sum: MixtureProblem.Sum, count: Int) {
    var random = SeededGenerator(seed: UInt64(count))
    for _ in 0..<200 {
      let problem = randomProblem(count: count, dimension: 8, random: &random)
      let weights = problem.solve(sum)
      #expect(weights.allSatisfy { $0 >= 0 })
      let total = weights.reduce(0, +)
      #expect(sum == .one ? abs(total - 1) < 1e-9 : total <= 1 + 1e-9)
      #expect(abs(problem.objective(weights) - problem.enumerated(sum)) < 1e-6)
    }
  }

  @Test func candidatesThatAreEqualDoNotMatter() {
    let problem = MixtureProblem(gram: [2, 2, 1, 2, 2, 1, 1, 1, 2], target: [1, 1, 0.5])
    let weights = problem.solve(.atMostOne)
    #expect(abs(problem.objective(weights) + 0.5) < 1e-6)
    #expect(weights == problem.solve(.atMostOne))
  }

  @Test func whatHelpsNothingWeighsNothing() {
    let problem = MixtureProblem(gram: [1, 0, 0, 1], target: [-1, -2])
    #expect(problem.solve(.atMostOne) == [0, 0])
    #expect(problem.solve(.one).reduce(0, +) == 1)
    #expect(MixtureProblem(gram: [0], target: [0]).solve(.one) == [1])
  }
}

@Suite struct MixtureFitTests {
  /// Sums over random vectors; each query head's target is a mixture of candidates 3 and 7.
  private func sums(_ mixtures: [[Double]]) -> UnitSums {
    var random = SeededGenerator(seed: 5)
    let candidates = (0..<9).map { _ in (0..<40).map { _ in Double.random(in: -1...1, using: &random) } }
    var sums = UnitSums(candidates: 9, queryHeads: mixtures.count)
    func dot(_ a: [Double], _ b: [Double]) -> Float { Float(zip(a, b).reduce(0) { $0 + $1.0 * $1.1 }) }
    for (head, weights) in mixtures.enumerated() {
      let target = (0..<40).map { weights[0] * candidates[3][$0] + weights[1] * candidates[7][$0] }
      sums.gram[head] = candidates.flatMap { row in candidates.map { dot(row, $0) } }
      sums.cross[head] = candidates.map { dot($0, target) }
      sums.square[head] = dot(target, target)
    }
    return sums
  }

  @Test func plantedMixturesAreFound() {
    let planted = [[0.6, 0.4], [0.1, 0.9], [1, 0]]
    let fit = MixtureFit(sums(planted), gains: [1, 2, 1], size: 4, sum: .one)
    #expect(fit.dictionary == [3, 7])
    #expect(fit.error < 1e-5)
    for (row, expected) in zip(fit.weights, planted) {
      #expect(zip(row, expected).allSatisfy { abs(Double($0) - $1) < 1e-3 })
    }
  }

  @Test func sumsBelowOneAreKeptWhereAllowed() {
    let sums = sums([[0.3, 0.2]])
    #expect(MixtureFit(sums, gains: [1], size: 2, sum: .atMostOne).error < 1e-5)
    let convex = MixtureFit(sums, gains: [1], size: 2, sum: .one)
    #expect(convex.error > 0.1)
    #expect(abs(convex.weights[0].reduce(0, +) - 1) < 1e-6)
  }

  /// With one candidate for two query heads, the one of the head that counts more is taken.
  @Test func gainsDecideWhoseErrorCounts() {
    let sums = sums([[1, 0], [0, 1]])
    #expect(MixtureFit(sums, gains: [1, 3], size: 1, sum: .one).dictionary == [7])
    #expect(MixtureFit(sums, gains: [3, 1], size: 1, sum: .one).dictionary == [3])
  }
}

@Suite struct UnitMeasurementsTests {
  /// Units whose changes are random vectors, so that the square form is exact.
  private func measurements(_ count: Int, random: inout SeededGenerator) -> (UnitMeasurements, ([Int]) -> Double) {
    let vectors = (0..<count).map { _ in (0..<4).map { _ in Double.random(in: -1...1, using: &random) } }
    func form(_ a: [Double], _ b: [Double]) -> Double { zip(a, b).reduce(0) { $0 + $1.0 * $1.1 } }
    let measured = UnitMeasurements(
      base: [], baseDivergence: 0, candidates: Array(0..<count), divergences: vectors.map { form($0, $0) },
      pairs: vectors.map { row in vectors.map { form(row, $0) } })
    return (
      measured,
      { indices in
        let sum = indices.reduce(into: [0.0, 0, 0, 0]) { sum, index in
          for k in 0..<4 { sum[k] += vectors[index][k] }
        }
        return form(sum, sum)
      }
    )
  }

  @Test func theSquareFormIsThatOfTheSum() {
    var random = SeededGenerator(seed: 1)
    let (measured, exact) = measurements(8, random: &random)
    for indices in [[], [3], [1, 2], [7, 0, 4, 5]] { #expect(abs(measured.predicted(indices) - exact(indices)) < 1e-9) }
  }

  @Test func theNextUnitIsTheOneThatAddsLeast() {
    var random = SeededGenerator(seed: 2)
    let (measured, exact) = measurements(8, random: &random)
    let order = measured.order()
    #expect(Set(order.map(\.index)).count == 8)
    for step in 0..<8 {
      let before = order.prefix(step).map(\.index)
      let best = measured.candidates.filter { !before.contains($0) }.map { exact(before + [$0]) }.min()
      #expect(abs(order[step].divergence - (best ?? 0)) < 1e-9)
    }
  }
}

@Suite struct UnitQueueTests {
  /// Measurements of units that change nothing but by themselves: unit u by `costs[u]`.
  private func measured(_ units: [Int], _ costs: [Double]) -> UnitMeasurements {
    UnitMeasurements(
      base: [], baseDivergence: 0, candidates: units, divergences: units.map { costs[$0] },
      pairs: units.map { row in units.map { $0 == row ? costs[$0] : 0 } })
  }

  @Test func thoseThatCameNextAreMeasuredAgain() {
    let costs: [Double] = [9, 1, 8, 2, 7, 3, 6, 4]
    var queue = UnitQueue(units: 8)
    #expect(queue.contenders == Array(0..<8))
    queue.take(measured(queue.contenders, costs), most: 8)
    #expect(queue.taken.map(\.unit) == [1, 3])
    #expect(queue.waiting == [5, 7, 6, 4, 2, 0])
    #expect(queue.contenders == [4, 5, 6, 7])
    // What is measured beside others may turn out otherwise.
    queue.take(measured(queue.contenders, [9, 1, 8, 2, 1, 3, 6, 4]), most: 1)
    #expect(queue.taken.map(\.unit) == [1, 3, 4])
    #expect(queue.waiting == [5, 7, 6, 2, 0])
  }

  @Test(arguments: 1...9, [1, 3, 100]) func everyUnitIsTakenOnce(units: Int, most: Int) {
    var random = SeededGenerator(seed: UInt64(units))
    var queue = UnitQueue(units: units)
    var rounds: [Int] = []
    while !queue.waiting.isEmpty {
      let costs = (0..<units).map { _ in Double.random(in: 0..<1, using: &random) }
      let contenders = queue.contenders
      rounds.append(contenders.count)
      let before = queue.taken.count
      queue.take(measured(contenders, costs), most: most)
      #expect(queue.taken[before...].allSatisfy { contenders.contains($0.unit) })
      #expect(queue.taken.count > before && queue.taken.count - before <= most)
    }
    #expect(queue.taken.map(\.unit).sorted() == Array(0..<units))
    if most == 100 { #expect(rounds == UnitQueue.rounds(units: units, wanted: units)) }
  }
}

@Suite struct WindowSpreadTests {
  @Test(arguments: 1...40) func unitsKeepTheAverage(count: Int) {
    var random = SeededGenerator(seed: UInt64(count))
    let costs = (0..<count).map { _ in Double.random(in: 0..<1, using: &random) * .random(in: 0..<1, using: &random) }
    let spread = WindowSpread(measured: costs, context: 1_024, shortest: 20)
    for mean in [20.0, 21, 68, 512, 800, 1_024] {
      let kept = spread.kept(mean: mean)
      let sum = kept.reduce(0) { $0 + ($1 ?? 1_024) }
      #expect(sum <= Int(mean) * count && kept.allSatisfy { $0 ?? 1_024 >= 20 })
      // All is given away but for what is lost to whole positions, and to a unit that cannot keep nearly all.
      #expect(sum >= Int(mean) * count - count - 1_024 / 8, "\(kept)")
      #expect(mean < 1_024 || kept.allSatisfy { $0 == nil })
    }
  }

  /// The sum of c (1 − w/C)² / w is least where its derivatives are the same.
  @Test func unitsOfHigherCostKeepMore() {
    // Of each cost 0.9 times 0.01 is taken for rounding.
    let kept = WindowSpread(measured: [0.01, 0.013, 0.025, 0.073], context: 1_000, shortest: 10).kept(mean: 300)
    let lengths = kept.map { Double($0 ?? 1_000) }
    #expect(lengths == lengths.sorted() && lengths[0] > 10 && lengths[3] < 875)
    let costs = [0.001, 0.004, 0.016, 0.064]
    let slopes = zip(costs, lengths).map { $0 * (1 / ($1 * $1) - 1e-6) }
    for slope in slopes { #expect(abs(slope / slopes[0] - 1) < 0.03, "\(slopes)") }
  }

  /// What rounding costs is the least that was measured up to a unit's layer.
  @Test func roundingCostsNothing() {
    let falling = WindowSpread(measured: [0.003, 0.002, 0.001], context: 1_000, shortest: 10).kept(mean: 300)
    let lengths = falling.map { $0 ?? 1_000 }
    #expect(lengths[0] > lengths[1] && lengths[1] > lengths[2])
    let spread = WindowSpread(measured: [0.001, 0.002, 0.003], context: 1_000, shortest: 10).kept(mean: 300)
    let others = spread.map { $0 ?? 1_000 }
    #expect(others[1] > 2 * others[0] && others[2] > others[1])
    #expect(WindowSpread(measured: [], context: 1_000, shortest: 10).kept(mean: 300) == [])
    #expect(WindowSpread(measured: [0, 0], context: 1_000, shortest: 10).kept(mean: 300) == [300, 300])
  }
}
