// HumanEval (Chen et al. 2021, arXiv 2107.03374): functions to be completed from their head and what they are to do.
//
// Data: the published `HumanEval.jsonl`, gzipped or not. The prompt is the function's head as it stands; the completion
// ends before what begins a new statement at the margin, and passes where head, completion and the published tests run
// without exception, as in the paper's harness. The most likely completion alone is tried: pass@1 without sampling.

import KindredModelFiles

/// The share of functions that pass their tests.
public struct HumanEvalTask: DataTask {
  public let name = "humaneval"
  public let data: TaskData
  private let sandbox: PythonSandbox

  /// What ends a completion.
  static let stop = ["\nclass", "\ndef", "\n#", "\nif", "\nprint"]

  /// Reads the file `data`.
  ///
  /// - Parameters:
  ///   - sandbox: runs the completions: `scores` executes what the model wrote.
  ///   - maxTokens: tokens of a completion.
  ///   - skipsBadItems: leaves out lines that cannot be read.
  /// - Throws: `DataError`.
  public init(data path: String, sandbox: PythonSandbox, maxTokens: Int = 512, skipsBadItems: Bool = false) throws {
    let file = try DataFile(path: path)
    var collector = ItemCollector<TaskItem>()
    try collector.addJSONLines(of: file) { number, node in
      let prompt = try node.string("prompt")
      let function = try node.string("entry_point")
      guard !function.isEmpty, function.utf8.allSatisfy(Self.isInIdentifier) else {
        throw node.error("entry_point", "expected the name of a function, found \(function.quoted(limit: 40))")
      }
      let test = try node.string("test")
      return TaskItem(
        id: TaskItem.id(file, number), request: .generate(prompt: prompt, maxTokens: maxTokens, stop: Self.stop),
        references: ["\n\(test)\ncheck(\(function))"])
    }
    self.data = try collector.data(path, skipsBadItems: skipsBadItems)
    self.sandbox = sandbox
  }

  /// Runs the completion with its tests, for some seconds at most.
  ///
  /// - Throws: `PythonSandboxError`.
  public func scores(of response: TaskResponse, to item: TaskItem) throws -> [String: Double] {
    let completion = try response.requireText()
    guard case .generate(let prompt, _, _) = item.request else {
      preconditionFailure("item \(item.id) is none of this task's")
    }
    return ["pass@1": try sandbox.passes(prompt + completion + item.references.joined()) ? 1 : 0]
  }

  private static func isInIdentifier(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"):
      true
    default: false
    }
  }
}
