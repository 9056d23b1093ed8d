// RULER's needles in a haystack (Hsieh et al. 2024, arXiv 2404.06654): `niah_single`, `niah_multikey` and the like.
//
// Data: the JSONL that RULER's `prepare.py` writes. The prompt is `input`, and `answer_prefix` where a file keeps that
// apart; 128 new tokens and the score, the share of the outputs that the answer contains whatever their case, are RULER's.

import KindredModelFiles

/// The recall of what is hidden.
public struct RulerTask: DataTask {
  public let name = "ruler"
  public let data: TaskData

  /// Tokens of an answer.
  static let newTokens = 128

  /// Reads the file `data`, or all `.jsonl` files of a folder, of which each is then a group.
  ///
  /// - Parameter skipsBadItems: leaves out lines that cannot be read.
  /// - Throws: `DataError`.
  public init(data path: String, skipsBadItems: Bool = false) throws {
    var collector = ItemCollector<TaskItem>()
    let isFolder = try DataPath(path) == .folder
    for path in try isFolder ? DataPath.files(in: path, endingIn: ".jsonl") : [path] {
      let file = try DataFile(path: path)
      try collector.addJSONLines(of: file) { number, node in
        let outputs = try node.elements("outputs").map { try $0.string("") }
        guard !outputs.isEmpty else { throw node.error("outputs", "expected at least one, found none") }
        let prompt = try node.string("input") + (node.stringIfPresent("answer_prefix") ?? "")
        return TaskItem(
          id: TaskItem.id(file, number), groups: isFolder ? ["file/\(file.stem)"] : [],
          request: .generate(prompt: prompt, maxTokens: Self.newTokens, stop: []), references: outputs)
      }
    }
    self.data = try collector.data(path, skipsBadItems: skipsBadItems)
  }

  public func scores(of response: TaskResponse, to item: TaskItem) throws -> [String: Double] {
    let answer = try response.requireText().lowercased()
    let found = item.references.count { answer.contains($0.lowercased()) }
    return ["recall": Double(found) / Double(item.references.count)]
  }
}
