// By what measure to compare heads: perplexity with the latter half mapped (IAM's Table 1).

import Foundation
import KindredAttentionMapping
import KindredCompute

/// Compares the measures of similarity.
public struct MeasureAnalysis: Analysis {
  /// The share of layers, from the last one backwards, that borrow.
  public var ratio = 0.5
  /// The text on which measures are compared.
  public var windows = ComparisonWindows()

  public init() {}

  public var problem: String? {
    (0...1).contains(ratio) ? windows.problem : "ratio: expected a number from 0 to 1, found \(ratio)"
  }

  public func run<B: Backend>(
    _ pair: AnalysedPair<B>, texts: [[Int32]], progress: (_ share: Double, _ step: String) -> Void
  ) throws -> AnalysisReport {
    let measures = SimilarityMeasure.allCases
    let recipes = measures.map { measure in
      var recipe = pair.recipe(.back(ratio: ratio))
      recipe.similarity = measure
      return recipe
    }
    let results = try windows.results(recipes, pair, tokens: texts[0]) { progress($0, "\(measures.count) measures") }
    let rows: [[AnalysisTable.Cell]] = zip(measures, results).map { measure, result in
      let paper = PaperNumbers.measures[measure].map { [$0.tiny, $0.seven] } ?? []
      return [.text(measure.rawValue)] + result.costs
        + paper.flatMap { [.number($0), .number(exp($0 - PaperNumbers.unmappedLogPerplexity))] }
    }
    let paperColumns = ["0.5b", "7b"].flatMap { ["paper_\($0)_log_perplexity", "paper_\($0)_factor"] }
    return AnalysisReport(
      name: "metrics",
      findings: [
        .init(
          name: "log-perplexity of the unmapped model", value: results[0].unmappedNLL,
          paper: "\(PaperNumbers.unmappedLogPerplexity)")
      ],
      tables: [
        AnalysisTable("metrics", columns: ["similarity"] + PerplexityResult.costColumns + paperColumns, rows: rows)
      ],
      figures: [
        .bars(
          "metrics", title: "Log-perplexity by measure of similarity",
          bars: zip(measures, results).map { ($0.rawValue, $1.nll) }, labels: ("measure", "log-perplexity"))
      ])
  }
}
