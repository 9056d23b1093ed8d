// Perplexity by several methods at once, with intervals: the windows of the text are the items.

import Foundation
import KindredAttentionMapping
import KindredCompute
import KindredGeneration
import KindredTransformer

/// Perplexity of a text by several methods beside the unmapped model.
public struct PerplexityTask<B: Backend> {
  /// As on the command line.
  public static var name: String { "perplexity" }

  private let methods: [RunnableMethod<B>]
  private let models: MethodModels<B>
  private let options: PerplexityOptions
  private let sessionOptions: Session<B>.Options

  /// Makes methods ready.
  ///
  /// - Throws: what ``MethodModels/runnable(_:length:)`` throws.
  public init(
    methods: [EvaluationMethod], models: MethodModels<B>, options: PerplexityOptions,
    sessionOptions: Session<B>.Options
  ) throws {
    self.methods = try methods.map { try models.runnable($0, length: options.context) }
    self.models = models
    self.options = options
    self.sessionOptions = sessionOptions
  }

  /// One way of borrowing, or none where `mapping` is `nil`.
  public init(
    mapping: Session<B>.Mapping?, models: MethodModels<B>, options: PerplexityOptions,
    sessionOptions: Session<B>.Options
  ) {
    let identity = mapping.map { "\($0.identity)" } ?? "unmapped"
    methods = [
      RunnableMethod(name: "mapped", decoder: models.large.decoder, mapping: mapping, identity: identity)
    ]
    self.models = models
    self.options = options
    self.sessionOptions = sessionOptions
  }

  /// What a run over a text found.
  public struct Findings: Sendable {
    fileprivate let methods: [(name: String, notes: [String])]
    fileprivate let scores: [[WindowScore]]  // [method][window]

    /// Windows of the text.
    public var windows: Int { scores.first?.count ?? 0 }

    /// Of each method.
    public var results: [PerplexityResult] { scores.map { PerplexityResult($0) } }

    /// Of each method, with intervals over windows.
    ///
    /// - Throws: `TaskError` for a perplexity that is no number.
    public func methodResults(seed: UInt64) throws -> [MethodResult] {
      let sums = scores.map { $0.map(\.sums) }
      let unmapped = methods.firstIndex { $0.name == EvaluationMethod.unmapped.name }
      return try methods.indices.map { index in
        let found = try Bootstrap(seed: seed).evaluate(
          sums[index], unmapped: index == unmapped ? nil : unmapped.map { sums[$0] },
          groups: sums[index].map { _ in [] }, summary: WindowScore.metrics)
        return MethodResult(
          method: methods[index].name, scores: found.scores, differences: found.differences, groups: [:],
          kvBytes: scores[index].first?.kv.total ?? 0, unmappedKVBytes: scores[index].first?.unmappedKVBytes ?? 0,
          seconds: scores[index].reduce(0) { $0 + $1.seconds },
          notes: methods[index].notes.isEmpty ? nil : methods[index].notes)
      }
    }
  }

  /// Runs over a text.
  ///
  /// - Parameters:
  ///   - text: the text.
  ///   - journalPath: where the windows' scores are kept; nowhere, where `nil`.
  ///   - inputs: what tells this run apart from those on other files or of another version; the text and the options are
  ///     added here.
  ///   - progress: called after each window with the windows done, their number, and the results so far.
  /// - Throws: `PerplexityError` for a text that is too short, `DecoderError` for a context that is too long; what is
  ///   wrong with the journal.
  public func run(
    _ text: String, journalPath: String? = nil, inputs: String = "",
    progress: (Int, Int, [PerplexityResult]) throws -> Void = { _, _, _ in }
  ) throws -> Findings {
    guard let tokenizer = models.large.tokenizer else { throw PromptError.noTokenizer(model: models.large.name) }
    let tokens = try tokenizer.promptTokens(text)
    var hash = InputHash()
    hash.add(inputs)
    hash.add("\(options.context) \(options.stride) \(options.scoreFrom) \(options.chunk)")
    hash.add("\(sessionOptions.kvType) \(String(describing: sessionOptions.smallKVType))")
    hash.add(tokens)
    let journal = try ResponseJournal<WindowScore>(path: journalPath, task: Self.name, inputs: hash.text)
    let scores = try PerplexityEvaluation(
      models.large.decoder, methods: methods, options: options, sessionOptions: sessionOptions
    ).run(tokens, tokenizer: tokenizer, journal: journal) { done, total, scores in
      try progress(done, total, scores.map { PerplexityResult($0) })
    }
    return Findings(methods: methods.map { ($0.name, $0.notes) }, scores: scores)
  }
}

extension Session.Mapping {
  /// Tells apart what sessions do.
  fileprivate var identity: String {
    var hash = InputHash()
    switch self {
    case .established(_, let recipe): hash.add("\(recipe)")
    case .planned(_, let plan): hash.add("\(plan)")
    }
    return hash.text
  }
}
