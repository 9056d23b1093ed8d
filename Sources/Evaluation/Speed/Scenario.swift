// Scenarios: work that is measured as a whole, as IAM's Table 3 does (`kindred bench --scenario`).
//
// As a file:
//   {"name": "chat", "sequences": 8, "prompt_tokens": 256, "generate_tokens": 64, "ratio": 0.5}
// with "plan": FILE, relative to the scenario's folder, or neither, in place of "ratio".

import Foundation
import KindredModelFiles

/// Sequences that are read and then continued together.
public struct Scenario: Sendable, Hashable {
  /// How results call it.
  public var name: String
  /// At the size that is run.
  public var sequences: Int
  /// Tokens of each prompt.
  public var promptTokens: Int
  /// Tokens generated after each prompt.
  public var generatedTokens: Int
  /// The share of the large model's layers that borrow, where the scenario has its own.
  public var ratio: Double?
  /// The plan by which attention is borrowed, where the scenario has its own: a path.
  public var plan: String?
  /// By what the three sizes were multiplied.
  public internal(set) var scale = 1.0

  public init(name: String, sequences: Int, promptTokens: Int, generatedTokens: Int) {
    self.name = name
    self.sequences = sequences
    self.promptTokens = promptTokens
    self.generatedTokens = generatedTokens
  }

  /// The paper's, of its Table 3.
  public static let published: [Scenario] = PaperNumbers.efficiency.sorted { $0.key > $1.key }.map { name, paper in
    var scenario = Scenario(
      name: name, sequences: paper.sequences, promptTokens: paper.promptTokens,
      generatedTokens: paper.generatedTokens)
    scenario.ratio = 0.5
    return scenario
  }

  /// A published scenario, or one from a file.
  ///
  /// - Throws: `ModelFileError` that says what is wrong with the file, and where.
  public init(named name: String) throws(ModelFileError) {
    if let published = Self.published.first(where: { $0.name == name }) {
      self = published
    } else {
      try self.init(path: name)
    }
  }

  private init(path: String) throws(ModelFileError) {
    guard FileManager.default.fileExists(atPath: path) else {
      let known = Self.published.map(\.name).joined(separator: ", ")
      throw ModelFileError(path: path, problem: "expected \(known) or a file, found none")
    }
    let file = try JSONNode(path: path)
    let known = ["name", "sequences", "prompt_tokens", "generate_tokens", "ratio", "plan"]
    if let stranger = try file.object("").first(where: { !known.contains($0.key) }) {
      throw ModelFileError(
        path: path, problem: "expected only \(known.joined(separator: ", ")), found \(stranger.key.quoted())")
    }
    let url = URL(fileURLWithPath: path)
    self.init(
      name: try file.stringIfPresent("name") ?? url.deletingPathExtension().lastPathComponent,
      sequences: try file.integer("sequences"), promptTokens: try file.integer("prompt_tokens"),
      generatedTokens: try file.integer("generate_tokens"))
    ratio = try file.doubleIfPresent("ratio")
    plan = try file.stringIfPresent("plan").map {
      URL(fileURLWithPath: $0, relativeTo: url.deletingLastPathComponent()).path
    }
    if let ratio, !(0...1).contains(ratio) {
      throw file.error("ratio", "expected a number from 0 to 1, found \(ratio)")
    }
    if ratio != nil, plan != nil { throw file.error("plan", "expected a ratio or a plan, found both") }
    if let problem { throw ModelFileError(path: path, problem: problem) }
  }

  /// Says what is wrong with the sizes, if anything is.
  public var problem: String? {
    if !(1...512).contains(sequences) { return "sequences: expected 1 to 512, found \(sequences)" }
    if !(1...1 << 20).contains(promptTokens) {
      return "prompt_tokens: expected 1 to \(1 << 20), found \(promptTokens)"
    }
    if !(2...1 << 20).contains(generatedTokens) {
      return "generate_tokens: expected 2 to \(1 << 20), found \(generatedTokens)"
    }
    return nil
  }

  /// The scenario with all three sizes multiplied by `scale` and rounded: at least one sequence, one token of a prompt
  /// and two generated ones. The work shrinks by about the square of the scale, and where attention counts, faster.
  public func scaled(by scale: Double) -> Scenario {
    func size(_ full: Int, atLeast least: Int) -> Int { max(least, Int((Double(full) * scale).rounded())) }
    var scenario = self
    scenario.sequences = size(sequences, atLeast: 1)
    scenario.promptTokens = size(promptTokens, atLeast: 1)
    scenario.generatedTokens = size(generatedTokens, atLeast: 2)
    scenario.scale = self.scale * scale
    return scenario
  }

  /// `16 sequences of 128 + 128 tokens`.
  public var sizes: String {
    "\(sequences) sequence\(sequences == 1 ? "" : "s") of \(promptTokens) + \(generatedTokens) tokens"
  }
}
