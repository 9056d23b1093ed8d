// GovReport (Huang et al. 2021, arXiv 2104.02112): summaries of reports by US government agencies.
//
// Data: LongBench's `gov_report.jsonl`; prompt, number of new tokens and ROUGE are LongBench's (arXiv 2308.14508).

/// ROUGE-1, -2 and -L of the summaries.
public struct GovReportTask: DataTask {
  public let name = "govreport"
  public let data: TaskData

  /// Tokens of a summary.
  static let newTokens = 512

  /// Reads the file `data`.
  ///
  /// - Parameter skipsBadItems: leaves out lines that cannot be read.
  /// - Throws: `DataError`.
  public init(data path: String, skipsBadItems: Bool = false) throws {
    let file = try DataFile(path: path)
    var collector = ItemCollector<TaskItem>()
    try collector.addJSONLines(of: file) { number, node in
      let document = try LongBenchDocument(node)
      let prompt = """
        You are given a report by a government agency. Write a one-page summary of the report.

        Report:
        \(document.context)

        Now, write a one-page summary of the report.

        Summary:
        """
      return TaskItem(
        id: TaskItem.id(file, number), request: .generate(prompt: prompt, maxTokens: Self.newTokens, stop: []),
        references: document.answers)
    }
    self.data = try collector.data(path, skipsBadItems: skipsBadItems)
  }

  public func scores(of response: TaskResponse, to item: TaskItem) throws -> [String: Double] {
    let summary = try response.requireText()
    let scores = item.references.map { RougeScores(summary, reference: $0) }
    return [
      "rouge1": scores.map(\.rouge1).max() ?? 0, "rouge2": scores.map(\.rouge2).max() ?? 0,
      "rougeL": scores.map(\.rougeL).max() ?? 0,
    ]
  }
}
