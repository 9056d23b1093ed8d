// Which part of the large model can borrow: each block of layers, layer or KV head mapped alone (IAM's Fig. 2 and
// Table 2).

import Foundation
import KindredAttentionMapping
import KindredCompute

/// Maps one part of the large model after the other and measures what that costs.
public struct LayerAnalysis: Analysis {
  /// What is mapped at a time.
  public enum Unit: Sendable, Hashable {
    /// So many blocks of consecutive layers; the paper's has 10 of 8 layers.
    case blocks(Int)
    case layer
    /// A KV head of a layer.
    case group
  }

  /// What is mapped at a time.
  public var unit = Unit.blocks(10)
  /// The text on which it is measured.
  public var windows = ComparisonWindows()

  public init() {}

  public var problem: String? {
    if case .blocks(let count) = unit, count < 1 { return "blocks: expected at least 1, found \(count)" }
    return windows.problem
  }

  /// A part of the large model.
  private struct Part {
    let name: String
    let recipe: PaperRecipe
  }

  public func run<B: Backend>(
    _ pair: AnalysedPair<B>, texts: [[Int32]], progress: (_ share: Double, _ step: String) -> Void
  ) throws -> AnalysisReport {
    let parts = try parts(of: pair)
    let results = try texts.enumerated().map { number, text in
      try windows.results(parts.map(\.recipe), pair, tokens: text) { share in
        progress((Double(number) + share) / Double(texts.count), "\(parts.count) parts on text \(number + 1)")
      }
    }
    return report(parts, results)
  }

  private func parts<B: Backend>(of pair: AnalysedPair<B>) throws -> [Part] {
    let layerCount = pair.layers.large
    switch unit {
    case .blocks(let count):
      guard count <= layerCount else {
        throw RecipeError(description: "blocks: expected at most the model's \(layerCount) layers, found \(count)")
      }
      return (0..<count).map { block in
        let layers = Array(block * layerCount / count..<(block + 1) * layerCount / count)
        return Part(
          name: layers.count > 1 ? "\(layers[0])-\(layers[layers.count - 1])" : "\(layers[0])",
          recipe: pair.recipe(.explicit(layers)))
      }
    case .layer: return (0..<layerCount).map { Part(name: "\($0)", recipe: pair.recipe(.explicit([$0]))) }
    case .group:
      return (0..<layerCount).flatMap { layer in
        (0..<pair.large.configuration.attention.kvHeads).map { group in
          var recipe = pair.recipe(.explicit([layer]))
          recipe.groups = [group]
          return Part(name: "\(layer).\(group)", recipe: recipe)
        }
      }
    }
  }

  private func report(_ parts: [Part], _ results: [[PerplexityResult]]) -> AnalysisReport {
    let inverses = results.map { $0.map { 1 / $0.nll } }
    let hasPaper = parts.count == PaperNumbers.blocks.count
    let suffixes = results.indices.map { $0 == 0 ? "" : "_\($0 + 1)" }
    let columns = suffixes.flatMap { suffix in
      (PerplexityResult.costColumns + ["inverse_log_perplexity"]).map { $0 + suffix }
    }
    let rows: [[AnalysisTable.Cell]] = parts.indices.map { part in
      [.text(parts[part].name)] + results.indices.flatMap { results[$0][part].costs + [.number(inverses[$0][part])] }
        + (hasPaper ? [.number(PaperNumbers.blocks[part].mmlu), .number(PaperNumbers.blocks[part].inverse)] : [])
    }
    return AnalysisReport(
      name: "layers", findings: findings(results, inverses),
      tables: [
        AnalysisTable(
          "layers", columns: ["layers"] + columns + (hasPaper ? ["paper_mmlu", "paper_inverse_log_perplexity"] : []),
          rows: rows)
      ],
      figures: results.indices.map { text in
        .bars(
          "layers\(suffixes[text])", title: "Divergence from the unmapped model where one part borrows",
          bars: zip(parts, results[text]).map { ($0.name, $1.klToUnmapped ?? 0) },
          labels: ("mapped part", "KL divergence, nats a token"))
      })
  }

  private func findings(_ results: [[PerplexityResult]], _ inverses: [[Double]]) -> [AnalysisReport.Finding] {
    var findings = results.enumerated().map { number, results in
      AnalysisReport.Finding(
        name: "log-perplexity of the unmapped model\(number == 0 ? "" : ", text \(number + 1)")",
        value: results[0].unmappedNLL)
    }
    let paperText = String(format: "%.3f (MMLU and 1/log-ppl)", PaperNumbers.blockCorrelation)
    for number in results.indices.dropFirst() {
      if let value = correlation(inverses[0], inverses[number]) {
        findings.append(
          .init(name: "correlation of 1/log-ppl on text 1 and text \(number + 1)", value: value, paper: paperText))
      }
    }
    if results.count == 1, let value = correlation(inverses[0], results[0].map { -($0.klToUnmapped ?? 0) }) {
      findings.append(.init(name: "correlation of 1/log-ppl and -KL", value: value, paper: paperText))
    }
    return findings
  }
}
