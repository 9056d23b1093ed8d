// A model with all that turns text into text: decoder, tokenizer, chat format.

import Foundation
import KindredAttentionMapping
import KindredCompute
import KindredTokenization
import KindredTransformer

/// A loaded model. It holds no state of a run and may be shared.
public struct LanguageModel<B: Backend>: Sendable {
  /// How the user named the model.
  public let name: String
  /// ``name`` without folders, for results that leave this machine.
  public var shortName: String { URL(fileURLWithPath: name).lastPathComponent }
  /// The model itself, weights and all.
  public let decoder: DecoderModel<B>
  /// `nil` for random weights, which have no vocabulary.
  public let tokenizer: Tokenizer?
  /// The model's chat template, where its file has one.
  public let chatTemplate: String?

  /// Reads a model's weights and tokenizer.
  ///
  /// - Parameters:
  ///   - model: the opened model.
  ///   - backend: where it is to run.
  ///   - progress: called with the share that is done, 0…1.
  /// - Throws: `ModelFileError`, `ComputeError` or `TokenizerError`.
  public init(_ model: OpenedModel, backend: B, progress: (Double) -> Void = { _ in }) throws {
    name = model.name
    tokenizer = try model.file.map { try Tokenizer(file: $0) }
    chatTemplate = try model.file.flatMap { try ChatFormat.template(in: $0) }
    decoder = try DecoderModel(model, backend: backend, progress: progress)
  }

  /// The model as a plan file names it.
  public var planned: PlannedModel {
    PlannedModel(name: name, configuration: decoder.configuration, vocabulary: tokenizer?.vocabularyHash)
  }

  /// Refuses a small model whose token ids do not mean the same.
  ///
  /// Random weights have no vocabulary to compare.
  public func requireVocabulary(of small: LanguageModel) throws(VocabularyMismatch) {
    guard let tokenizer, let other = small.tokenizer, let difference = tokenizer.firstDifference(from: other) else {
      return
    }
    throw VocabularyMismatch(large: name, small: small.name, difference: difference)
  }
}

/// Two models that do not share a vocabulary cannot share attention.
public struct VocabularyMismatch: Error, Sendable, CustomStringConvertible {
  let large: String
  let small: String
  let difference: String

  public var description: String {
    "\(small) cannot lend attention to \(large): expected the same vocabulary, found \(difference)"
  }
}
