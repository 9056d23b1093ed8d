// The part of a report on the paper's recipe over all tasks: what of the unmapped model's quality is left as more layers
// borrow (IAM's Fig. 5, and its Table 4 for perplexity).

/// Makes the section on the paper's recipe; empty where no result has it beside the unmapped model.
struct RecipeSection {
  let results: [EvaluationResult]

  /// What is left of a task's quality at a share of layers: 1 is the unmapped model's.
  struct Kept: Hashable {
    var ratio: Double
    var share: Double
  }

  /// Of a score, or, where lower is better, of its inverse; the least share first.
  static func kept(_ result: EvaluationResult) -> [Kept] {
    guard let metric = TaskInfo.known[result.task]?.metrics.first(where: { result.unmapped?.scores[$0] != nil }),
      let unmapped = result.unmapped?.scores[metric]?.value, unmapped != 0
    else { return [] }
    return result.methods.compactMap { method -> Kept? in
      guard let ratio = method.paperRatio, let value = method.scores[metric]?.value, value != 0 else { return nil }
      return Kept(ratio: ratio, share: metric == "perplexity" ? unmapped / value : value / unmapped)
    }.sorted { $0.ratio < $1.ratio }
  }

  var blocks: [ReportBlock] {
    let kept = results.map { (name: TaskInfo.known[$0.task]?.title ?? $0.task, kept: Self.kept($0)) }
      .filter { !$0.kept.isEmpty }
    guard !kept.isEmpty else { return [] }
    let paper = PaperNumbers.untunedPerplexity.keys.sorted().map { ratio in
      Kept(ratio: ratio, share: 1 / (PaperNumbers.untunedFactor(ratio: ratio) ?? .nan))
    }
    let lines = kept + [(name: "paper: perplexity, 72B (Table 4)", kept: paper)]
    let ratios = Set(lines.flatMap { $0.kept.map(\.ratio) }).sorted()
    let rows = lines.map { line in
      [line.name] + ratios.map { ratio in NumberText.percent(line.kept.first { $0.ratio == ratio }?.share) }
    }
    let series = lines.map { line in
      LineChart.Series(
        name: line.name,
        points: [.init(x: 0, y: 100)] + line.kept.map { .init(x: 100 * $0.ratio, y: 100 * $0.share) })
    }
    return [
      .paragraph(
        "The paper's recipe: the last layers borrow, each head from the small head whose attention is most alike on the "
          + "first 100 tokens. What is left of the unmapped model's score; for perplexity, the unmapped one divided by "
          + "the mapped one."),
      .chart(
        Chart(
          caption: "Quality that is left by the share of layers that borrow, in % of the unmapped model's (Fig. 5).",
          content: .lines(
            LineChart(
              xLabel: "layers that borrow, %", yLabel: "score, % of the unmapped model's", series: series)))),
      .table(
        ReportTable(
          "Share of the unmapped score that is left",
          columns: ["task"] + ratios.map { "\(NumberText.percent($0, digits: 0)) borrow" }, rows: rows)),
    ]
  }
}
