// The answers of an evaluation on disk (`JournalFile`): one line for each item and method, as they are found.

import Foundation
import KindredAttentionMapping

/// What one method answered to one item.
struct JournaledAnswer<Answer: Codable & Sendable>: Codable, Sendable {
  /// `RunnableMethod.identity`.
  var method: String
  /// `TaskItem.id`.
  var item: String
  var answer: Answer
  /// The item's share of the time that its unit took.
  var seconds: Double
  /// At the end of the item, of both models.
  var kvBytes: Int
  /// What the unmapped large model holds there.
  var unmappedKVBytes: Int

  private enum CodingKeys: String, CodingKey {
    case method, item, answer, seconds
    case kvBytes = "kv_bytes"
    case unmappedKVBytes = "unmapped_kv_bytes"
  }
}

/// Answers by method and item; on disk, too, where a path is given.
final class ResponseJournal<Answer: Codable & Sendable> {
  private struct Header: Codable {
    var format = "kindred-evaluation"
    var version = 1
    var task: String
    /// A hash of all that answers depend on.
    var inputs: String
  }

  private enum Line: Codable {
    case header(Header)
    case answer(JournaledAnswer<Answer>)
  }

  private struct Key: Hashable {
    var method: String
    var item: String
  }

  private var answers: [Key: JournaledAnswer<Answer>] = [:]
  private let file: JournalFile<Line>?

  /// Opens the journal at `path`, or starts one.
  ///
  /// - Parameter inputs: a hash of all that answers depend on, methods apart.
  /// - Throws: `JournalError`, also for a journal of other inputs: somebody may have waited for it.
  init(path: String?, task: String, inputs: String) throws {
    file = try path.map {
      try JournalFile(path: $0, header: .header(Header(task: task, inputs: inputs)))
    }
    for case .answer(let found) in file?.found ?? [] {
      answers[Key(method: found.method, item: found.item)] = found
    }
  }

  func answer(of method: String, to item: String) -> JournaledAnswer<Answer>? {
    answers[Key(method: method, item: item)]
  }

  /// Notes an answer, unless there is one already.
  func note(_ answer: JournaledAnswer<Answer>) throws {
    let key = Key(method: answer.method, item: answer.item)
    guard answers[key] == nil else { return }
    try file?.append(.answer(answer))
    answers[key] = answer
  }
}
