// Intervals of scores: the percentile bootstrap (Efron 1979). Items are drawn with replacement, as many as there are, and
// scored anew; what the middle 95% of these scores lie between is the interval.

import Foundation
import KindredCompute

/// Draws items; the same ones for every score of as many items, so that differences are paired.
package struct Bootstrap: Sendable {
  package var seed: UInt64
  /// Draws of all items.
  package var resamples = 1_000

  package init(seed: UInt64) { self.seed = seed }

  /// Scores of `count` items with their intervals, by metric.
  ///
  /// - Parameter scores: the scores of the items with the given indices, of which some may come several times.
  /// - Throws: `TaskError` for a score of all items that is no number. Of a draw such a score does not count.
  package func estimates(count: Int, scores: ([Int]) -> [String: Double]) throws(TaskError) -> [String: Estimate] {
    let all = scores(Array(0..<count))
    for (metric, value) in all where !value.isFinite {
      throw TaskError(description: "\(metric): expected a number over \(count) items, found \(value)")
    }
    var drawn: [String: [Double]] = [:]
    var generator = SeededGenerator(seed: seed)
    for _ in 0..<resamples {
      let indices = (0..<count).map { _ in Int.random(in: 0..<count, using: &generator) }
      for (metric, value) in scores(indices) where value.isFinite { drawn[metric, default: []].append(value) }
    }
    return all.reduce(into: [:]) { result, score in
      let sorted = (drawn[score.key] ?? [score.value]).sorted()
      result[score.key] = Estimate(
        value: score.value, low: Self.percentile(0.025, of: sorted), high: Self.percentile(0.975, of: sorted))
    }
  }

  /// The value below which a share of sorted values lie, between two of them in proportion, as NumPy does by default.
  package static func percentile(_ share: Double, of sorted: [Double]) -> Double {
    let place = share * Double(sorted.count - 1)
    let lower = Int(place)
    let upper = min(lower + 1, sorted.count - 1)
    return sorted[lower] + (place - Double(lower)) * (sorted[upper] - sorted[lower])
  }
}

extension Bootstrap {
  /// What a method reached: scores, groups, and differences from the unmapped model.
  ///
  /// - Parameters:
  ///   - scores: of each item, by metric.
  ///   - unmapped: those of the unmapped model; `nil` for that model itself, or where it did not run.
  ///   - groups: of each item.
  ///   - summary: what scores of several items amount to.
  package func evaluate(
    _ scores: [[String: Double]], unmapped: [[String: Double]]?, groups: [[String]],
    summary: ([[String: Double]]) -> [String: Double]
  ) throws(TaskError) -> (
    scores: [String: Estimate], differences: [String: Estimate], groups: [String: [String: Estimate]]
  ) {
    let total = try estimates(count: scores.count) { summary($0.map { scores[$0] }) }
    var differences: [String: Estimate] = [:]
    if let unmapped {
      differences = try estimates(count: scores.count) { indices in
        let reference = summary(indices.map { unmapped[$0] })
        return summary(indices.map { scores[$0] }).reduce(into: [:]) { result, score in
          if let other = reference[score.key] { result[score.key] = score.value - other }
        }
      }
    }
    var byGroup: [String: [String: Estimate]] = [:]
    for group in Set(groups.joined()).sorted() {
      let members = groups.indices.filter { groups[$0].contains(group) }
      byGroup[group] = try estimates(count: members.count) { indices in summary(indices.map { scores[members[$0]] }) }
    }
    return (total, differences, byGroup)
  }
}
