// HotpotQA (Yang et al. 2018, arXiv 1809.09600): questions over several paragraphs of Wikipedia.
//
// Data: the published JSON (one list; the distractor setting's ten paragraphs become the passages) or LongBench's
// `hotpotqa.jsonl`. Prompt, number of new tokens and scores are LongBench's (Bai et al. 2024, arXiv 2308.14508): the
// whole answer counts, and of several references the best match.

import KindredModelFiles

/// F1 and exact match of the answers.
public struct HotpotQATask: DataTask {
  public let name = "hotpotqa"
  public let data: TaskData

  /// Tokens of an answer.
  static let newTokens = 32

  /// Reads the file `data`: a list where it begins with a bracket, otherwise lines.
  ///
  /// - Parameter skipsBadItems: leaves out what cannot be read.
  /// - Throws: `DataError`.
  public init(data path: String, skipsBadItems: Bool = false) throws {
    let file = try DataFile(path: path)
    var collector = ItemCollector<TaskItem>()
    if file.bytes.first(where: { !" \t\r\n".utf8.contains($0) }) == UInt8(ascii: "[") {
      try collector.addJSONArray(of: file) { try Self.item(published: $1, id: TaskItem.id(file, $0)) }
    } else {
      try collector.addJSONLines(of: file) { number, node in
        let document = try LongBenchDocument(node)
        return Self.item(
          id: TaskItem.id(file, number), question: document.input, passages: document.context,
          answers: document.answers)
      }
    }
    self.data = try collector.data(path, skipsBadItems: skipsBadItems)
  }

  public func scores(of response: TaskResponse, to item: TaskItem) throws -> [String: Double] {
    let answer = try response.requireText()
    return [
      "f1": item.references.map { answerF1(answer, reference: $0) }.max() ?? 0,
      "exact_match": item.references.map { exactMatch(answer, reference: $0) }.max() ?? 0,
    ]
  }

  private static func item(published node: JSONNode, id: String) throws -> TaskItem {
    var passages: [String] = []
    for paragraph in try node.elements("context") {
      guard case .array(let parts) = paragraph.value, parts.count == 2, let title = parts[0].string,
        case .array(let sentences) = parts[1]
      else { throw paragraph.error("", "expected a title and a list of sentences, found \(paragraph.value)") }
      let texts = sentences.compactMap(\.string)
      guard texts.count == sentences.count else {
        throw paragraph.error("", "expected sentences that are text, found others")
      }
      passages.append("Passage \(passages.count + 1):\n\(title)\n\(texts.joined())")
    }
    let groups = try ["type", "level"].compactMap { kind in
      try node.stringIfPresent(kind).map { "\(kind)/\($0.onOneLine(limit: 40))" }
    }
    return item(
      id: id, groups: groups, question: try node.string("question"), passages: passages.joined(separator: "\n"),
      answers: [try node.string("answer")])
  }

  private static func item(
    id: String, groups: [String] = [], question: String, passages: String, answers: [String]
  ) -> TaskItem {
    let instruction =
      "Answer the question based on the given passages. Only give me the answer and do not output any other words."
    let prompt = """
      \(instruction)

      The following are given passages.
      \(passages)

      \(instruction)

      Question: \(question)
      Answer:
      """
    return TaskItem(
      id: id, groups: groups, request: .generate(prompt: prompt, maxTokens: newTokens, stop: []), references: answers)
  }
}
