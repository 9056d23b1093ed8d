// The tiny pair with a vocabulary of single characters, and a task over it.

import Foundation
import KindredAttention
import KindredAttentionMapping
import KindredCompute
import KindredEvaluation
import KindredGeneration
import KindredTransformer

/// The models of `AttentionMappingTests/make_fixtures.py` (3 layers; 2 layers) in folders with a tokenizer.
struct TinyModels {
  let folder: DataFolder
  let models: MethodModels<CPUBackend>

  /// Printable ASCII, space and line feed, one token each, as byte-level tokenizers spell them.
  static let tokenizer: String = {
    let characters = (33...126).map { String(UnicodeScalar($0)) } + ["Ġ", "Ċ"]
    let vocabulary = characters.enumerated().map { "\(jsonText($1)): \($0)" }.joined(separator: ", ")
    return """
      {"model": {"type": "BPE", "vocab": {\(vocabulary)}, "merges": []}, "added_tokens": [],
       "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
       "decoder": {"type": "ByteLevel"}}
      """
  }()

  private static func jsonText(_ text: String) -> String {
    "\"" + text.replacingOccurrences(of: "\\", with: "\\\\").replacingOccurrences(of: "\"", with: "\\\"") + "\""
  }

  init(threads: Int = 2) throws {
    let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().appendingPathComponent("AttentionMappingTests/Fixtures/pair")
    let folder = try DataFolder()
    let backend = try CPUBackend(threads: threads)
    func model(_ name: String) throws -> LanguageModel<CPUBackend> {
      let path = folder(name)
      try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
      for file in ["config.json", "model.safetensors"] {
        try FileManager.default.copyItem(
          atPath: fixtures.appendingPathComponent("\(name)/\(file)").path, toPath: "\(path)/\(file)")
      }
      try Data(Self.tokenizer.utf8).write(to: URL(fileURLWithPath: "\(path)/tokenizer.json"))
      return try LanguageModel(OpenedModel(path: path), backend: backend)
    }
    var recipe = PaperRecipe(layers: .back(ratio: 0))
    recipe.establishmentTokens = 40
    self.folder = folder
    models = MethodModels(large: try model("large"), small: try model("small"), recipe: recipe, seed: 5)
  }

  func options(batch: Int = 10) -> TaskRunOptions<CPUBackend> {
    var options = TaskRunOptions<CPUBackend>()
    options.batch = batch
    options.session.kvType = .f32
    return options
  }

  /// A plan of both models, as a file.
  func planFile() throws -> String {
    let configuration = models.large.decoder.configuration
    var plan = AttentionPlan.own(layers: 3, kvHeads: configuration.attention.kvHeads)
    plan.units[1] = Array(
      repeating: .mapped(near: NearWindow(positions: 16, sinks: 2), far: .layer(0)), count: 2)
    plan.units[2][0] = .borrowed([
      HeadIndex(layer: 1, head: 0), HeadIndex(layer: 0, head: 2), HeadIndex(layer: 1, head: 0),
    ])
    let path = folder("tiny.json")
    try PlanFile(large: models.large.planned, small: models.small?.planned, plan: plan).write(to: path)
    return path
  }

  /// Every kind of method.
  func methods() throws -> [EvaluationMethod] {
    [
      .unmapped, .small, .paper(ratio: 0.34), .random(ratio: 0.67), .shared(ratio: 0.34), .streaming(ratio: 1),
      .plan(path: try planFile()),
    ]
  }
}

/// Questions over some text, scored by what the tests want to see.
struct TinyTask: EvaluationTask {
  let name = "tiny"
  var items: [TaskItem]

  func scores(of response: TaskResponse, to item: TaskItem) -> [String: Double] {
    switch response {
    case .logLikelihoods(let values): ["best": Double(values.indices.max { values[$0] < values[$1] } ?? 0)]
    case .text(let text): ["length": Double(text.count)]
    case .similarity(let value): ["similarity": value]
    }
  }

  /// Words that look like something.
  static func words(_ count: Int, seed: Int) -> String {
    let letters = Array("etaoinshrdlu")
    let words = (0..<count).map { number in
      let length = 2 + (number * 7 + seed) % 5
      return String((0..<length).map { letters[($0 * 5 + number * 3 + seed) % 12] })
    }
    return words.joined(separator: " ")
  }

  /// Two subjects of four questions with answers of one character, then one whose answers have several.
  static var choices: [TaskItem] {
    (0..<3).flatMap { subject in
      let header = "Questions about \(words(9, seed: subject * 11)).\n"
      return (0..<4).map { number in
        TaskItem(
          id: "\(subject)-\(number)", groups: ["subject/\(subject)"],
          request: .choose(
            prompt: header + words(2 + 3 * number, seed: number) + "\nAnswer:",
            continuations: subject < 2 ? [" A", " B", " C"] : [" yes, yes", " no", " I do not know"]),
          references: [])
      }
    }
  }

  /// Prompts with nothing in common, and some with much.
  static var generations: [TaskItem] {
    (0..<6).map { number in
      TaskItem(
        id: "g\(number)",
        request: .generate(
          prompt: (number < 3 ? "" : words(14, seed: 50)) + words(3 + 4 * number, seed: number),
          maxTokens: 4 + number * 3, stop: number.isMultiple(of: 2) ? [" "] : []),
        references: [])
    }
  }

  static var comparisons: [TaskItem] {
    (0..<4).map { number in
      TaskItem(
        id: "c\(number)", request: .compare(words(number + 1, seed: 1), words(12 - number, seed: number)),
        references: [])
    }
  }
}
