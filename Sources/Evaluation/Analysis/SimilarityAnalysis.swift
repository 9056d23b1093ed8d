// How alike the attention of two models is, head by head (IAM's Figs. 9 and 10).

import KindredAttentionMapping
import KindredCompute

/// Cosines of all pairs of heads.
public struct SimilarityAnalysis: Analysis {
  /// Texts of τ_t tokens over which maps are compared; each is read from an empty cache.
  public var windows = 1

  public init() {}

  public var problem: String? { sizeProblem("windows", windows) }

  public func run<B: Backend>(
    _ pair: AnalysedPair<B>, texts: [[Int32]], progress: (_ share: Double, _ step: String) -> Void
  ) throws -> AnalysisReport {
    let all = try pair.similarities(windows, of: texts[0], progress: progress)
    let sums = all.dropFirst().reduce(into: all[0]) { $0.add($1) }
    let cosines = (0..<sums.largeCount).map { head in (0..<sums.smallCount).map { sums.value(head, $0) } }
    let best = (0..<sums.largeCount).map(sums.best)
    return report(pair, cosines: cosines, best: best)
  }

  private func report<B: Backend>(_ pair: AnalysedPair<B>, cosines: [[Double]], best: [Int]) -> AnalysisReport {
    let heads = pair.heads
    func name(_ head: Int, of count: Int) -> String { "\(head / count).\(head % count)" }
    let layers = layerMeans(cosines, heads: heads, layers: pair.layers)
    let bestValues = best.enumerated().map { cosines[$0][$1] }
    let bestByLayer = (0..<pair.layers.large).map { layer in
      bestValues[layer * heads.large..<(layer + 1) * heads.large].reduce(0, +) / Double(heads.large)
    }
    let paper = PaperNumbers.bestCosine
    return AnalysisReport(
      name: "similarity",
      findings: [
        .init(
          name: "mean cosine of a head and its most alike small one", value: mean(bestValues),
          paper: "\(paper.sameSeries) (7B to 72B), \(paper.otherSeries) (another series)"),
        .init(name: "mean cosine of all pairs of heads", value: mean(cosines.joined())),
      ],
      tables: [
        AnalysisTable(
          "similarity-best", columns: ["large_layer", "mean_best_cosine", "most_alike_small_layer", "layer_cosine"],
          rows: layers.enumerated().map { layer, row in
            let alike = row.indices.max { row[$0] < row[$1] } ?? 0
            return [.integer(layer), .number(bestByLayer[layer]), .integer(alike), .number(row[alike])]
          }),
        matrix("similarity-layers", layers, rowName: { "\($0)" }, columnName: { "\($0)" }),
        matrix(
          "similarity-heads", cosines, rowName: { name($0, of: heads.large) }, columnName: { name($0, of: heads.small) }
        ),
      ],
      figures: [
        .heatMap(
          "similarity-heads", title: "Cosine of attention maps, head by head", matrix: cosines,
          labels: ("small layer", "large layer"), step: (heads.small, heads.large)),
        .heatMap(
          "similarity-layers", title: "Cosine of attention maps, mean over the heads of a layer", matrix: layers,
          labels: ("small layer", "large layer")),
      ])
  }

  /// `[L][l]`.
  private func layerMeans(
    _ cosines: [[Double]], heads: (large: Int, small: Int), layers: (large: Int, small: Int)
  ) -> [[Double]] {
    (0..<layers.large).map { large in
      (0..<layers.small).map { small in
        mean(
          (large * heads.large..<(large + 1) * heads.large).flatMap {
            cosines[$0][small * heads.small..<(small + 1) * heads.small]
          })
      }
    }
  }

  private func matrix(
    _ name: String, _ values: [[Double]], rowName: (Int) -> String, columnName: (Int) -> String
  ) -> AnalysisTable {
    AnalysisTable(
      name, columns: ["large"] + (values.first ?? []).indices.map { "small_\(columnName($0))" },
      rows: values.enumerated().map { [.text(rowName($0))] + $1.map { .number($0) } }, isMatrix: true)
  }
}

/// The mean of at least one number.
func mean(_ values: some Collection<Double>) -> Double { values.reduce(0, +) / Double(values.count) }
