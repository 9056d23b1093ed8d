// The library's front door: generate text in process, from a large model that may borrow a small one's attention.

import Foundation
import KindredAttentionMapping
import KindredCompute
import KindredTokenization
import KindredTransformer
import Synchronization

/// A piece of generated text.
public struct GeneratedText: Sendable, Hashable {
  /// One or more whole characters.
  public var text: String
}

/// A large model, and a small one of the same series that lends it its attention.
///
/// Generations of one pair share its threads and take turns; each has a KV cache of its own.
///
/// ```swift
/// let pair = try ModelPair(largeAt: "large.gguf", smallAt: "small.gguf", plan: .paper(ratio: 0.3))
/// for try await piece in pair.generate("def fibonacci(n):") { print(piece.text, terminator: "") }
/// ```
public final class ModelPair: Sendable {
  /// The model that generates.
  public let large: LanguageModel<CPUBackend>
  /// `nil` where the large model runs alone.
  public let small: LanguageModel<CPUBackend>?
  private let mapping: Session<CPUBackend>.Mapping?
  private let sessionOptions: Session<CPUBackend>.Options
  private let lastStatistics = Mutex<GenerationStatistics?>(nil)

  /// How attention is borrowed.
  public struct Plan: Sendable {
    let source: @Sendable () throws -> MappingSource

    /// IAM's recipe: the last `ratio` of the layers take the maps of the most alike small heads.
    public static func paper(ratio: Double) -> Plan { paper(PaperRecipe(layers: .back(ratio: ratio))) }

    /// IAM's recipe for the listed layers.
    public static func paper(layers: [Int]) -> Plan { paper(PaperRecipe(layers: .explicit(layers))) }

    /// IAM's recipe with measure, layers and numbers of tokens as wanted.
    public static func paper(_ recipe: PaperRecipe) -> Plan { Plan { .recipe(recipe) } }

    /// The plan in the file at `path`.
    public static func file(_ path: String) -> Plan { Plan { .plan(try PlanFile(path: path)) } }
  }

  /// Loads models from files or folders.
  ///
  /// - Parameters:
  ///   - largePath: a GGUF file or a Hugging Face folder.
  ///   - smallPath: the same for the lending model; `nil` to run the large model alone.
  ///   - plan: how attention is borrowed.
  ///   - kvType: the type of stored keys and values.
  ///   - smallKVType: the type of the small model's; `kvType` by default.
  ///   - threads: threads to compute with; one for each physical core by default.
  /// - Throws: `ModelFileError`, `ComputeError`, `TokenizerError`; `VocabularyMismatch` for models of different
  ///   series; `RecipeError`, `LayerSelection.SelectionError` or `PlanError` for a plan that does not fit the models.
  public init(
    largeAt largePath: String, smallAt smallPath: String? = nil, plan: Plan = .paper(ratio: 0.3),
    kvType: KVType = .f16, smallKVType: KVType? = nil, threads: Int? = nil
  ) throws {
    let backend = try CPUBackend(threads: threads)
    let openedLarge = try OpenedModel(path: largePath)
    let openedSmall = try smallPath.map { try OpenedModel(path: $0) }
    let source = try plan.source()
    try source.check(large: openedLarge, small: openedSmall)
    try openedLarge.check(kvType: kvType)
    try openedSmall?.check(kvType: smallKVType ?? kvType)
    large = try LanguageModel(openedLarge, backend: backend)
    small = try openedSmall.map { try LanguageModel($0, backend: backend) }
    mapping = try source.mapping(large: large, small: small)
    var options = Session<CPUBackend>.Options()
    options.kvType = kvType
    options.smallKVType = smallKVType
    sessionOptions = options
  }

  /// The figures of the newest generation that ended; `nil` before the first.
  public var statistics: GenerationStatistics? { lastStatistics.withLock { $0 } }

  /// Continues `prompt`.
  ///
  /// The work runs on a thread of its own. Ending the iteration, or cancelling its task, ends the generation.
  public func generate(
    _ prompt: String, options: GenerationOptions = GenerationOptions()
  ) -> AsyncThrowingStream<GeneratedText, any Error> {
    AsyncThrowingStream { continuation in
      let cancelled = CancellationFlag()
      continuation.onTermination = { _ in cancelled.set() }
      let thread = Thread {
        do {
          let statistics = try self.run(prompt, options: options, cancelled: cancelled) {
            continuation.yield(GeneratedText(text: $0))
          }
          self.lastStatistics.withLock { $0 = statistics }
          continuation.finish()
        } catch {
          continuation.finish(throwing: error)
        }
      }
      thread.name = "kindred-generate"
      thread.start()
    }
  }

  private func run(
    _ prompt: String, options: GenerationOptions, cancelled: CancellationFlag, onText: (String) -> Void
  ) throws -> GenerationStatistics {
    guard let tokenizer = large.tokenizer else { throw PromptError.noTokenizer(model: large.name) }
    let tokens = try tokenizer.promptTokens(prompt)
    let session = try Session(decoder: large.decoder, mapping: mapping, options: sessionOptions)
    return try TextGeneration(session: session, tokenizer: tokenizer, options: options)
      .run(tokens, isCancelled: { cancelled.isSet }, onText: onText)
  }
}

/// Says from another thread that a generation should end.
public final class CancellationFlag: Sendable {
  private let value = Atomic<Bool>(false)

  public init() {}

  /// Asks for the end.
  public func set() { value.store(true, ordering: .relaxed) }
  /// Whether the end has been asked for.
  public var isSet: Bool { value.load(ordering: .relaxed) }
}

/// What is wrong with a prompt.
public enum PromptError: Error, Sendable, Hashable, CustomStringConvertible {
  case empty
  case noTokenizer(model: String)

  public var description: String {
    switch self {
    case .empty: "prompt: expected at least one token, found an empty prompt"
    case .noTokenizer(let model): "\(model): expected a model with a tokenizer to generate text, found random weights"
    }
  }
}

extension Tokenizer {
  /// The tokens of a prompt, with the beginning-of-text token where the model wants one.
  public func promptTokens(_ text: String) throws(PromptError) -> [Int32] {
    let tokens = encode(text)
    guard !text.isEmpty, !tokens.isEmpty else { throw .empty }
    return tokens
  }
}
