// SST-2 (Socher et al. 2013), as in GLUE: is a sentence from a film review positive or negative?
//
// Data: GLUE's TSV, whose first line names the columns: the sentence, and 0 (negative) or 1. Prompt and choice are those
// of lm-evaluation-harness: `SENTENCE\nQuestion: Is this sentence positive or negative?\nAnswer:`, then ` negative` or
// ` positive`, whichever is more likely. Work of prefill alone.

import KindredModelFiles

/// The share of sentences whose label the model finds more likely.
public struct SST2Task: DataTask {
  public let name = "sst2"
  public let data: TaskData

  static let labels = ["negative", "positive"]

  /// Reads the file `data`.
  ///
  /// - Parameter skipsBadItems: leaves out lines that cannot be read.
  /// - Throws: `DataError`.
  public init(data path: String, skipsBadItems: Bool = false) throws {
    let file = try DataFile(path: path)
    var collector = ItemCollector<TaskItem>()
    try collector.addLines(of: file) { number, line in
      let fields = try line.split(separator: UInt8(ascii: "\t"), omittingEmptySubsequences: false)
        .map { try DataFile.text($0) }
      if number == 1, fields == ["text", "label"] || fields == ["sentence", "label"] { return nil }
      guard fields.count == 2 else {
        throw ItemProblem("expected 2 fields (sentence, label), found \(fields.count)")
      }
      guard let label = Int(fields[1]), Self.labels.indices.contains(label) else {
        throw ItemProblem("expected the label 0 or 1, found \(fields[1].quoted(limit: 20))")
      }
      return TaskItem(
        id: TaskItem.id(file, number),
        request: .choose(
          prompt: "\(fields[0])\nQuestion: Is this sentence positive or negative?\nAnswer:",
          continuations: Self.labels.map { " \($0)" }),
        references: [Self.labels[label]])
    }
    self.data = try collector.data(path, skipsBadItems: skipsBadItems)
  }

  public func scores(of response: TaskResponse, to item: TaskItem) throws -> [String: Double] {
    ["accuracy": item.references == [Self.labels[try response.likeliest(of: Self.labels.count)]] ? 1 : 0]
  }
}
