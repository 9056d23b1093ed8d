// A line of LongBench's data sets: https://huggingface.co/datasets/THUDM/LongBench.

import KindredModelFiles

/// A document, what is asked of it, and right answers.
struct LongBenchDocument {
  let input: String
  let context: String
  /// At least one.
  let answers: [String]

  init(_ node: JSONNode) throws {
    input = try node.string("input")
    context = try node.string("context")
    let answers = try node.elements("answers").map { try $0.string("") }
    guard !answers.isEmpty else { throw node.error("answers", "expected at least one, found none") }
    self.answers = answers
  }
}
