// STS-B (Cer et al. 2017, arXiv 1708.00055): how similar people found two sentences, 0 to 5.
//
// Data: `sts-dev.tsv` and the like, without header: genre, file, year, number, rating, two sentences, and at times
// sources; or GLUE's with its header. The model's similarity is the cosine of the final hidden states of the sentences'
// last tokens: work of prefill alone.

import KindredModelFiles

/// Spearman's rank correlation of the model's similarities with people's.
public struct STSBTask: DataTask {
  public let name = "stsb"
  public let data: TaskData

  /// Reads the file `data`.
  ///
  /// - Parameter skipsBadItems: leaves out lines that cannot be read.
  /// - Throws: `DataError`.
  public init(data path: String, skipsBadItems: Bool = false) throws {
    var collector = ItemCollector<TaskItem>()
    let file = try DataFile(path: path)
    var columns = (rating: 4, first: 5, second: 6)
    try collector.addLines(of: file) { number, line in
      let fields = try line.split(separator: UInt8(ascii: "\t"), omittingEmptySubsequences: false)
        .map { try DataFile.text($0) }
      if number == 1, let rating = fields.firstIndex(of: "score"), let first = fields.firstIndex(of: "sentence1"),
        let second = fields.firstIndex(of: "sentence2")
      {
        columns = (rating, first, second)
        return nil
      }
      let needed = max(columns.rating, columns.first, columns.second) + 1
      guard fields.count >= needed else {
        throw ItemProblem("expected at least \(needed) fields, found \(fields.count)")
      }
      guard let rating = Double(fields[columns.rating]), (0...5).contains(rating) else {
        throw ItemProblem("expected a rating from 0 to 5, found \(fields[columns.rating].quoted(limit: 20))")
      }
      let sentences = (fields[columns.first].trimmed, fields[columns.second].trimmed)
      guard !sentences.0.isEmpty, !sentences.1.isEmpty else {
        throw ItemProblem("expected two sentences, found an empty one")
      }
      return TaskItem(
        id: TaskItem.id(file, number), request: .compare(sentences.0, sentences.1), references: ["\(rating)"])
    }
    self.data = try collector.data(path, skipsBadItems: skipsBadItems)
  }

  /// The two sides of the correlation, which only several items have.
  public func scores(of response: TaskResponse, to item: TaskItem) throws -> [String: Double] {
    ["similarity": try response.requireSimilarity(), "rated": item.references.first.flatMap(Double.init) ?? 0]
  }

  /// ρ, and no number where there is none because all similarities or all ratings are the same.
  public func summary(of scores: [[String: Double]]) -> [String: Double] {
    let (similarities, ratings) = (scores.compactMap { $0["similarity"] }, scores.compactMap { $0["rated"] })
    return ["spearman": spearman(similarities, ratings) ?? .nan]
  }
}
