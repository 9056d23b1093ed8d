// The part of a report on one analysis of a pair: what it shows, its figures, and a chart.

import Foundation

/// Makes the section of an analysis.
struct AnalysisSection {
  let run: ResultFolder.AnalysisRun

  /// What a reader should know of an analysis, and how it is drawn.
  private struct Info: Sendable {
    var title: String
    var about: String
    var charts: @Sendable (ResultFolder.AnalysisRun) -> [Chart?]
  }

  private static let known: [String: Info] = [
    "similarity": Info(
      title: "How alike the heads are (Figs. 9 and 10)",
      about: "Every head of the large model is compared with every head of the small one over the same text: 1 means "
        + "that both look at the same places with the same weights. A borrowed head can be no better than its most "
        + "alike one.",
      charts: {
        [$0.similarityMap("similarity-layers", of: "layers"), $0.similarityMap("similarity-heads", of: "heads")]
      }),
    "layers": Info(
      title: "Which layers can borrow (Fig. 2, Table 2)",
      about:
        "One part of the large model borrows at a time. Where the divergence is large, that part should keep its own "
        + "attention.",
      charts: { [$0.costByPart] }),
    "strategies": Info(
      title: "In which order to choose layers (Fig. 11, Table 4)",
      about: "Log-perplexity by the share of layers that borrow, for each order in which layers are chosen.",
      charts: {
        [$0.strategies("log_perplexity", "log-perplexity"), $0.strategies("kl_to_unmapped", "KL to unmapped")]
      }),
    "metrics": Info(
      title: "By what to compare heads (Table 1)",
      about: "The latter half of the layers borrows; heads are matched by five measures of similarity. The factor is "
        + "that on the unmapped model's perplexity.", charts: { _ in [] }),
    "consistency": Info(
      title: "Whether the map stays (Fig. 3)",
      about: "The map is found on the prompt. While text is generated, the best map is looked for again: the share of "
        + "heads that keep theirs, and the cosine that the others lose.",
      charts: {
        [
          $0.agreement("consistency-steps", x: "generated_tokens"),
          $0.agreement("consistency-layers", x: "large_layer"),
        ]
      }),
    "usage": Info(
      title: "Which small heads serve (Fig. 12)",
      about: "How often each small head is the most alike one. What several heads share has to be computed only once.",
      charts: { [$0.usageMap] }),
  ]
  /// The order in which analyses stand in a report.
  static let order = ["metrics", "layers", "consistency", "similarity", "strategies", "usage"]

  var title: String { Self.known[run.name]?.title ?? "Analysis \(run.name)" }

  var blocks: [ReportBlock] {
    let info = Self.known[run.name]
    var blocks: [ReportBlock] = info.map { [.paragraph($0.about)] } ?? []
    if let models = run.models { blocks.append(.paragraph("\(models.small) lends to \(models.large).")) }
    if !run.findings.isEmpty {
      let rows = run.findings.map { finding in
        [finding.name, NumberText.significant(finding.value, digits: 4), finding.paper ?? NumberText.none]
      }
      blocks.append(
        .table(ReportTable("Findings", columns: ["", "here", "paper"], rows: rows, textColumns: [0, 2])))
    }
    blocks += (info?.charts(run) ?? []).compactMap { $0.map(ReportBlock.chart) }
    for table in run.tables where !table.isMatrix { blocks.append(Self.block(table)) }
    return blocks
  }

  /// As many rows stand in an open table.
  private static let mostOpenRows = 15

  private static func block(_ table: AnalysisTable) -> ReportBlock {
    let shown = ReportTable(
      table.name, columns: table.columns.map { Metric($0).title },
      rows: table.rows.map { $0.map { $0.display.isEmpty ? NumberText.none : $0.display } })
    return table.rows.count > mostOpenRows
      ? .details(summary: "\(table.name), \(table.rows.count) rows", [.table(shown)]) : .table(shown)
  }
}

extension ResultFolder.AnalysisRun {
  /// The series of a column over `x`.
  private func series(
    _ name: String, _ table: AnalysisTable, x: [Double?], column: String
  ) -> LineChart.Series? {
    table.numbers(column).map { values in
      LineChart.Series(
        name: name,
        points: zip(x, values).compactMap { x, y in x.flatMap { x in y.map { LineChart.Point(x: x, y: $0) } } })
    }
  }

  private func chart(_ caption: String, _ lines: LineChart) -> Chart? {
    lines.isEmpty ? nil : Chart(caption: caption, content: .lines(lines))
  }

  /// A matrix of cosines, the large model's layers or heads downwards.
  fileprivate func similarityMap(_ name: String, of kind: String) -> Chart? {
    guard let table = table(name), table.columns.count > 1 else { return nil }
    return Chart(
      caption: "Cosine of attention maps, \(kind) of the large model (downwards) and of the small one. The darker, the "
        + "more alike.",
      content: .heatMap(
        HeatMap(
          xLabel: "small model, \(kind)", yLabel: "large model, \(kind)",
          columnNames: table.columns.dropFirst().map { $0.replacing("small_", with: "") },
          rowNames: table.rows.map { $0[0].display }, values: table.rows.map { $0.dropFirst().map(\.double) })))
  }

  /// The divergence that each part causes by itself, by text.
  fileprivate var costByPart: Chart? {
    guard let table = table("layers"), let parts = table.column("layers") else { return nil }
    let positions = parts.indices.map { Double?(Double($0)) }
    let columns = table.columns.filter { $0.hasPrefix("kl_to_unmapped") }
    return chart(
      "Divergence from the unmapped model where one part borrows.",
      LineChart(
        xLabel: "layers that borrow", yLabel: "KL to unmapped, nats a token", categories: parts.map(\.display),
        series: columns.enumerated().compactMap { index, column in
          series("text \(index + 1)", table, x: positions, column: column)
        }))
  }

  fileprivate func strategies(_ column: String, _ label: String) -> Chart? {
    guard let table = table("strategies"), let names = table.column("strategy")?.map(\.display),
      let ratios = table.numbers("ratio"), let values = table.numbers(column)
    else { return nil }
    let kinds = names.reduce(into: [String]()) { if !$0.contains($1) { $0.append($1) } }
    let series = kinds.map { kind in
      let rows = names.indices.filter { names[$0] == kind }
      return LineChart.Series(
        name: kind,
        points: rows.compactMap { row in
          ratios[row].flatMap { x in values[row].map { LineChart.Point(x: x, y: $0) } }
        })
    }
    return chart(
      "Cost of borrowing by the order in which layers are chosen.",
      LineChart(xLabel: "share of layers that borrow", yLabel: "\(label) (lower is better)", series: series))
  }

  fileprivate func agreement(_ name: String, x: String) -> Chart? {
    guard let table = table(name), let positions = table.numbers(x) else { return nil }
    let columns = [
      ("share of heads whose map stays", "share_same"), ("cosine of the best map", "best_cosine"),
      ("cosine of the prompt's map", "cosine_of_prompts_map"),
    ]
    let label = x.replacing("_", with: " ")
    return chart(
      "The prompt's map while text is generated, by \(label).",
      LineChart(
        xLabel: label, yLabel: "share or cosine",
        series: columns.compactMap { series($0.0, table, x: positions, column: $0.1) }))
  }

  /// How often each small head is the most alike one.
  fileprivate var usageMap: Chart? {
    guard let table = table("usage"), let layers = table.numbers("small_layer"),
      let heads = table.numbers("small_head"), let shares = table.numbers("share")
    else { return nil }
    var cells: [Int: [Int: Double]] = [:]
    let most = 0.0...1000.0
    for case ((let layer?, let head?), let share?) in zip(zip(layers, heads), shares)
    where most.contains(layer) && most.contains(head) {
      cells[Int(layer), default: [:]][Int(head)] = 100 * share
    }
    guard let lastLayer = cells.keys.max(), let lastHead = cells.values.flatMap(\.keys).max() else { return nil }
    return Chart(
      caption: "How many of the large model's heads each small head serves, %. The darker, the more.",
      content: .heatMap(
        HeatMap(
          xLabel: "small head", yLabel: "small layer", columnNames: (0...lastHead).map { "\($0)" },
          rowNames: (0...lastLayer).map { "\($0)" },
          values: (0...lastLayer).map { layer in (0...lastHead).map { cells[layer]?[$0] } })))
  }
}
