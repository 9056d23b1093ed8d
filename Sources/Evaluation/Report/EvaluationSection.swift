// The part of a report on one task: a table of methods, quality against KV bytes, and results by group.

import Foundation

/// Makes the section of a task's result.
struct EvaluationSection {
  let result: EvaluationResult
  private let info: TaskInfo
  private let metrics: [String]

  init(_ result: EvaluationResult) {
    self.result = result
    info = TaskInfo.known[result.task] ?? TaskInfo(title: result.task, about: "", metrics: [])
    let found = Set(result.methods.flatMap(\.scores.keys))
    let first = info.metrics.filter(found.contains)
    metrics = first + found.subtracting(first).sorted()
  }

  /// Fewer items than these get a warning.
  private static let fewItems = 10

  var title: String { info.title }

  var blocks: [ReportBlock] {
    var blocks: [ReportBlock] = []
    if !info.about.isEmpty { blocks.append(.paragraph(info.about)) }
    var count = "\(result.items) items."
    if result.skippedItems > 0 {
      count += " \(result.skippedItems) lines of data could not be read and are left out."
    }
    if result.items < Self.fewItems { count += " So few say little, and so do the intervals." }
    blocks.append(.paragraph(count))
    blocks.append(.table(table))
    let notes = result.methods.flatMap { method in (method.notes ?? []).map { "\(method.method): \($0)" } }
    if !notes.isEmpty { blocks.append(.list(notes)) }
    for metric in metrics.prefix(2) {
      if let chart = curve(metric) { blocks.append(.chart(chart)) }
    }
    return blocks + groups
  }

  /// Methods with their scores; where the unmapped model ran, with the difference of the first score from it.
  private var table: ReportTable {
    let difference = metrics.first.flatMap { metric in
      result.methods.contains { $0.differences[metric] != nil } ? metric : nil
    }
    let hasPaper = result.task == "perplexity" && result.methods.contains { $0.paperFactor != nil }
    var columns = ["method"]
    for metric in metrics {
      columns.append(Metric(metric).title)
      if metric == difference { columns.append("difference") }
    }
    if hasPaper { columns += ["perplexity factor", "paper's factor (72B)"] }
    columns += ["KV", "share of unmapped KV", "time"]
    let rows = result.methods.map { method in
      var cells = [method.method]
      for metric in metrics {
        cells.append(Metric(metric).text(method.scores[metric], interval: metric == metrics.first))
        if metric == difference { cells.append(Metric(metric).text(method.differences[metric], signed: true)) }
      }
      if hasPaper { cells += [NumberText.times(perplexityFactor(method)), NumberText.times(method.paperFactor)] }
      let seconds = "\(NumberText.significant(method.seconds)) s"
      return cells + [NumberText.bytes(Double(method.kvBytes)), NumberText.percent(method.kvShare), seconds]
    }
    return ReportTable(
      "\(info.title), with 95% intervals; differences from the unmapped model are paired, item by item.",
      columns: columns, rows: rows)
  }

  private func perplexityFactor(_ method: MethodResult) -> Double? {
    guard let own = method.scores["perplexity"]?.value, let unmapped = result.unmapped?.scores["perplexity"]?.value,
      unmapped > 0
    else { return nil }
    return own / unmapped
  }

  /// A metric over the share of KV bytes, methods of one kind joined.
  private func curve(_ metric: String) -> Chart? {
    let kinds = result.methods.map(\.kind).reduce(into: [String]()) { if !$0.contains($1) { $0.append($1) } }
    let series = kinds.map { kind in
      let points = result.methods.filter { $0.kind == kind }.compactMap { method -> LineChart.Point? in
        guard let score = method.scores[metric], let share = method.kvShare else { return nil }
        let (value, low, high) = (score.value, score.low, score.high)
        let factor = Metric(metric).factor
        return LineChart.Point(
          x: 100 * share, y: factor * value, interval: (factor * low, factor * high),
          label: method.setting?.replacing(".json", with: ""))
      }
      return LineChart.Series(name: kind, points: points.sorted { $0.x < $1.x })
    }
    let chart = LineChart(
      xLabel: "KV bytes of both models, % of the unmapped model's", yLabel: Metric(metric).axis, series: series)
    guard !chart.isEmpty else { return nil }
    return Chart(
      caption: "\(info.title): \(Metric(metric).title) against KV bytes. Bars are 95% intervals; a line joins the "
        + "settings of one method.", content: .lines(chart))
  }

  // MARK: Groups

  /// As many groups stand in an open table.
  private static let mostOpenGroups = 12

  private var groups: [ReportBlock] {
    let names = Set(result.methods.flatMap(\.groups.keys)).sorted {
      $0.compare($1, options: .numeric) == .orderedAscending
    }
    guard !names.isEmpty, let metric = metrics.first else { return [] }
    var blocks = result.methods.compactMap { heatMap($0, metric: metric) }.map(ReportBlock.chart)
    let table = ReportTable(
      "\(Metric(metric).title) by group", columns: ["group"] + result.methods.map(\.method),
      rows: names.map { name in
        [name] + result.methods.map { Metric(metric).text($0.groups[name]?[metric], interval: false) }
      })
    if names.count > Self.mostOpenGroups {
      blocks.append(.details(summary: "\(info.title) by group (\(names.count))", [.table(table)]))
    } else {
      blocks.append(.table(table))
    }
    return blocks
  }

  /// Scores by the length of the text and the depth of what is to be found in it.
  private func heatMap(_ method: MethodResult, metric: String) -> Chart? {
    var cells: [Double: [Double: Double]] = [:]
    for (name, scores) in method.groups {
      guard let cell = Self.lengthAndDepth(name), let score = scores[metric] else { continue }
      cells[cell.depth, default: [:]][cell.length] = Metric(metric).factor * score.value
    }
    let depths = cells.keys.sorted()
    let lengths = Set(cells.values.flatMap(\.keys)).sorted()
    guard !depths.isEmpty else { return nil }
    func name(_ value: Double) -> String {
      value == value.rounded() && value < 1e9 ? "\(Int(value))" : NumberText.significant(value)
    }
    return Chart(
      caption: "\(info.title), \(method.method): \(Metric(metric).axis) by length of the text and depth of the needle.",
      content: .heatMap(
        HeatMap(
          xLabel: "length of the text, tokens", yLabel: "depth of the needle, %", columnNames: lengths.map(name),
          rowNames: depths.map(name), values: depths.map { depth in lengths.map { cells[depth]?[$0] } },
          range: Metric(metric).range)))
  }

  /// The two numbers in the name of a group that is a cell of a grid: `length/4096,depth/50`.
  static func lengthAndDepth(_ group: String) -> (length: Double, depth: Double)? {
    let numbers = group.split { !$0.isNumber && $0 != "." }.compactMap { Double($0) }
    return numbers.count == 2 && group.contains("depth") ? (numbers[0], numbers[1]) : nil
  }
}

/// What a reader should know of a task.
struct TaskInfo {
  var title: String
  var about: String
  /// The most important first.
  var metrics: [String]

  static let known: [String: TaskInfo] = [
    "perplexity": TaskInfo(
      title: "Perplexity",
      about: "How well the model predicts a text, token by token: e to the power of the mean surprise. Lower is "
        + "better; the divergence (KL) says how far the predictions are from the unmapped model's, 0 where they are the "
        + "same.",
      metrics: ["perplexity", "kl_to_unmapped", "top1_agreement", "nll", "word_perplexity", "byte_perplexity"]),
    "mmlu": TaskInfo(
      title: "MMLU", about: "Multiple-choice questions of 57 subjects; by chance 25% are answered rightly.",
      metrics: ["accuracy"]),
    "hotpotqa": TaskInfo(
      title: "HotpotQA",
      about: "Questions whose answer needs two of ten given passages; F1 counts the words that answer and reference "
        + "share.",
      metrics: ["f1", "exact_match"]),
    "govreport": TaskInfo(
      title: "GovReport",
      about: "Summaries of long reports; ROUGE counts the words and runs of words shared with the reference.",
      metrics: ["rougeL", "rouge1", "rouge2"]),
    "needle": TaskInfo(
      title: "Needle in a haystack", about: "A sentence hidden in a long text has to be found again.",
      metrics: ["found"]),
    "ruler": TaskInfo(
      title: "RULER, several keys", about: "One of several keys hidden in a long text has to be found again.",
      metrics: ["recall"]),
    "humaneval": TaskInfo(
      title: "HumanEval", about: "Python functions are completed and run against tests.", metrics: ["pass@1"]),
    "sst2": TaskInfo(
      title: "SST-2", about: "Whether a sentence of a review praises or not; by chance half are right.",
      metrics: ["accuracy"]),
    "stsb": TaskInfo(
      title: "STS-B", about: "How alike two sentences are; Spearman's ρ between the model's and people's order.",
      metrics: ["spearman"]),
  ]
}

/// How a metric is shown.
struct Metric {
  let name: String

  init(_ name: String) { self.name = name }

  private static let titles = [
    "f1": "F1", "exact_match": "exact match", "kl_to_unmapped": "KL to unmapped", "top1_agreement": "same top token",
    "nll": "log-perplexity", "rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L",
    "spearman": "Spearman's ρ", "found": "needles found",
  ]
  /// Shown as they are; everything else that is known is a share and shown as a percentage.
  private static let plain = lowerIsBetter.union(["spearman"])
  private static let lowerIsBetter: Set<String> = [
    "perplexity", "word_perplexity", "byte_perplexity", "kl_to_unmapped", "nll",
  ]

  private var isKnown: Bool { TaskInfo.known.values.contains { $0.metrics.contains(name) } }
  private var isShare: Bool { isKnown && !Self.plain.contains(name) }

  var title: String { Self.titles[name] ?? name.replacing("_", with: " ") }
  /// By what a value is multiplied in charts.
  var factor: Double { isShare ? 100 : 1 }
  /// The ends of a scale for charts, where the metric has such.
  var range: ClosedRange<Double>? { isShare ? 0...100 : nil }
  /// The label of an axis.
  var axis: String {
    let unit = isShare ? ", %" : name == "kl_to_unmapped" ? ", nats a token" : ""
    guard isKnown else { return title }
    return "\(title)\(unit) (\(Self.lowerIsBetter.contains(name) ? "lower" : "higher") is better)"
  }

  /// `62.3% (58.1–66.0)`; with a sign, where it is a difference.
  func text(_ estimate: Estimate?, signed: Bool = false, interval: Bool = true) -> String {
    guard let estimate else { return NumberText.none }
    func number(_ value: Double) -> String {
      guard value.isFinite else { return NumberText.none }
      let sign = signed && value > 0 ? "+" : ""
      return sign + (isShare ? String(format: "%.1f", 100 * value) : NumberText.significant(value, digits: 4))
    }
    let value = number(estimate.value) + (isShare && !signed ? "%" : "")
    guard interval, estimate.low != estimate.high else { return value }
    return "\(value) (\(number(estimate.low)) to \(number(estimate.high)))"
  }
}

extension EvaluationResult {
  var unmapped: MethodResult? { methods.first { $0.method == "unmapped" } }
}

extension MethodResult {
  /// What a method is, without its setting: `paper` of `paper:0.5`.
  var kind: String { method.split(separator: ":").first.map(String.init) ?? method }
  /// Its setting: `0.5`.
  var setting: String? { method.firstIndex(of: ":").map { String(method[method.index(after: $0)...]) } }
  /// The share of layers that the paper's recipe maps.
  var paperRatio: Double? { kind == "paper" ? setting.flatMap(Double.init) : nil }
  /// What the paper's Table 4 has for the same share.
  var paperFactor: Double? { paperRatio.flatMap(PaperNumbers.untunedFactor) }
  /// KV bytes as a share of the unmapped model's.
  var kvShare: Double? { unmappedKVBytes > 0 ? Double(kvBytes) / Double(unmappedKVBytes) : nil }
}
