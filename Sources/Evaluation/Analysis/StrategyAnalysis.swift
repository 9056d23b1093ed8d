// Which layers to map: perplexity by strategy and ratio (IAM's Fig. 11 and Table 4).

import KindredAttentionMapping
import KindredCompute

/// Compares the orders in which layers are chosen, at several ratios.
public struct StrategyAnalysis: Analysis {
  /// The orders that are compared.
  public var strategies = LayerStrategy.allCases
  /// Shares of the large model's layers.
  public var ratios = [0.1, 0.2, 0.3, 0.4, 0.5]
  /// The text on which they are compared.
  public var windows = ComparisonWindows()

  public init() {}

  public var problem: String? {
    if strategies.isEmpty { return "strategy: expected at least one, found none" }
    if let wrong = ratios.first(where: { !(0...1).contains($0) }) {
      return "ratio: expected numbers from 0 to 1, found \(wrong)"
    }
    return ratios.isEmpty ? "ratio: expected at least one, found none" : windows.problem
  }

  public func run<B: Backend>(
    _ pair: AnalysedPair<B>, texts: [[Int32]], progress: (_ share: Double, _ step: String) -> Void
  ) throws -> AnalysisReport {
    let cases = strategies.flatMap { strategy in ratios.map { (strategy, $0) } }
    let results = try windows.results(
      cases.map { pair.recipe(.share($0, ratio: $1)) }, pair, tokens: texts[0]
    ) { progress($0, "\(cases.count) choices of layers") }
    let rows: [[AnalysisTable.Cell]] = zip(cases, results).map { one, result in
      let (strategy, ratio) = one
      let paper = strategy == .back ? PaperNumbers.untunedFactor(ratio: ratio) : nil
      return [.text(strategy.rawValue), .number(ratio)] + result.costs + [paper.map { .number($0) } ?? .none]
    }
    return AnalysisReport(
      name: "strategies",
      findings: [.init(name: "log-perplexity of the unmapped model", value: results[0].unmappedNLL)]
        + best(cases, results),
      tables: [
        AnalysisTable(
          "strategies", columns: ["strategy", "ratio"] + PerplexityResult.costColumns + ["paper_perplexity_factor"],
          rows: rows)
      ],
      figures: [
        figure("strategies", of: results, "log-perplexity", value: \.nll),
        figure("strategies-kl", of: results, "KL divergence, nats a token") { $0.klToUnmapped ?? .nan },
      ])
  }

  /// At each ratio the least perplexity.
  private func best(
    _ cases: [(strategy: LayerStrategy, ratio: Double)], _ results: [PerplexityResult]
  ) -> [AnalysisReport.Finding] {
    ratios.compactMap { ratio in
      let there = zip(cases, results).filter { $0.0.ratio == ratio }
      guard let best = there.min(by: { $0.1.nll < $1.1.nll }) else { return nil }
      return .init(name: "least log-perplexity at ratio \(ratio), by \(best.0.strategy.rawValue)", value: best.1.nll)
    }
  }

  private func figure(
    _ name: String, of results: [PerplexityResult], _ label: String, value: (PerplexityResult) -> Double
  ) -> Figure {
    .lines(
      name, title: "Cost of mapping by choice of layers", x: ratios,
      series: strategies.enumerated().map { index, strategy in
        (strategy.rawValue, results[index * ratios.count..<(index + 1) * ratios.count].map(value))
      }, labels: ("share of layers mapped", label))
  }
}
