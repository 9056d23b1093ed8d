// How often each small head is the map (IAM's Fig. 12): a few serve many.

import Foundation
import KindredAttentionMapping
import KindredCompute

/// Counts the large heads that each small head serves, every layer mapped.
public struct UsageAnalysis: Analysis {
  /// Texts of τ_t tokens; each gives a map of its own.
  public var windows = 8

  public init() {}

  public var problem: String? { sizeProblem("windows", windows) }

  public func run<B: Backend>(
    _ pair: AnalysedPair<B>, texts: [[Int32]], progress: (_ share: Double, _ step: String) -> Void
  ) throws -> AnalysisReport {
    var counts = Array(repeating: 0, count: pair.layers.small * pair.heads.small)
    var used: [Double] = []
    for sums in try pair.similarities(windows, of: texts[0], progress: progress) {
      let best = (0..<sums.largeCount).map(sums.best)
      for head in best { counts[head] += 1 }
      used.append(Double(Set(best).count))
    }
    return report(counts, usedByWindow: used, smallHeads: pair.heads.small)
  }

  private func report(_ counts: [Int], usedByWindow: [Double], smallHeads: Int) -> AnalysisReport {
    let total = Double(counts.reduce(0, +))
    let shares = counts.map { Double($0) / total }
    let ranked = counts.indices.sorted { (counts[$0], $1) > (counts[$1], $0) }
    let top = Array(ranked.prefix(max(1, counts.count / 10)))
    return AnalysisReport(
      name: "usage",
      findings: [
        .init(name: "small heads in use, of \(counts.count), for one text", value: mean(usedByWindow)),
        .init(name: "share of large heads that the most frequent small head serves", value: shares[ranked[0]]),
        .init(
          name: "share that the \(top.count) most frequent serve", value: top.reduce(0) { $0 + shares[$1] }),
        .init(name: "entropy of the use, 1 where all heads serve alike", value: entropy(shares)),
        .init(name: "Gini coefficient of the use, 0 where all heads serve alike", value: gini(counts)),
      ],
      tables: [
        AnalysisTable(
          "usage", columns: ["small_layer", "small_head", "times", "share"],
          rows: ranked.map {
            [.integer($0 / smallHeads), .integer($0 % smallHeads), .integer(counts[$0]), .number(shares[$0])]
          })
      ],
      figures: [
        .heatMap(
          "usage", title: "Share of large heads that each small head serves",
          matrix: stride(from: 0, to: counts.count, by: smallHeads).map { Array(shares[$0..<$0 + smallHeads]) },
          labels: ("small head", "small layer"))
      ])
  }

  /// Shannon's, as a share of what it is at most.
  private func entropy(_ shares: [Double]) -> Double {
    guard shares.count > 1 else { return 1 }
    return -shares.reduce(0) { $0 + ($1 > 0 ? $1 * log($1) : 0) } / log(Double(shares.count))
  }

  private func gini(_ counts: [Int]) -> Double {
    let (count, total) = (Double(counts.count), Double(counts.reduce(0, +)))
    let weighted = counts.sorted().enumerated().reduce(0.0) { $0 + Double($1.offset + 1) * Double($1.element) }
    return 2 * weighted / (count * total) - (count + 1) / count
  }
}
