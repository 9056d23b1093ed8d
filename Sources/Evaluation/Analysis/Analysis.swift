// What IAM's paper (Zhao, Li, Zhao, ACL 2025, arXiv 2507.11953) shows of attention maps, measured on any pair of models.

import KindredAttentionMapping
import KindredCompute
import KindredGeneration
import KindredTransformer

/// The models of an analysis.
public struct AnalysedPair<B: Backend> {
  /// The model whose heads are mapped.
  public var large: DecoderModel<B>
  /// The model whose heads stand in for them, of the same vocabulary.
  public var small: DecoderModel<B>
  /// The type of stored keys and values.
  public var kvType: KVType
  /// τ_t: tokens on which a map is established.
  public var establishmentTokens = 100

  /// - Parameters:
  ///   - large: the model whose heads are mapped.
  ///   - small: a model of the same vocabulary.
  ///   - kvType: the type of stored keys and values.
  public init(large: DecoderModel<B>, small: DecoderModel<B>, kvType: KVType = .f16) {
    self.large = large
    self.small = small
    self.kvType = kvType
  }

  /// Query heads of a layer of the large and of the small model.
  var heads: (large: Int, small: Int) {
    (large.configuration.attention.queryHeads, small.configuration.attention.queryHeads)
  }

  /// Layers of the large and of the small model.
  var layers: (large: Int, small: Int) { (large.configuration.layerCount, small.configuration.layerCount) }

  /// The paper's recipe for these layers.
  func recipe(_ layers: LayerSelection) -> PaperRecipe {
    var recipe = PaperRecipe(layers: layers)
    recipe.establishmentTokens = establishmentTokens
    recipe.minimumTokens = min(recipe.minimumTokens, establishmentTokens)
    return recipe
  }

  /// Both models before an empty text.
  func reader() throws -> AttentionReader<B> { try AttentionReader(large: large, small: small, kvType: kvType) }

  /// The first texts of τ_t tokens, one after the other.
  ///
  /// - Throws: `AnalysisError` where the text has not that many.
  func windows(_ count: Int, of tokens: [Int32]) throws(AnalysisError) -> [[Int32]] {
    let needed = count * establishmentTokens
    guard tokens.count >= needed else { throw .tooShort(needed: needed, found: tokens.count) }
    return stride(from: 0, to: needed, by: establishmentTokens).map { Array(tokens[$0..<$0 + establishmentTokens]) }
  }

  /// How alike all heads are over each of the first texts of τ_t tokens, every one read from an empty cache.
  func similarities(
    _ count: Int, of tokens: [Int32], progress: (_ share: Double, _ step: String) -> Void
  ) throws -> [SimilaritySums] {
    try windows(count, of: tokens).enumerated().map { number, window in
      progress(Double(number) / Double(count), "comparing heads over window \(number + 1) of \(count)")
      return try reader().read(window)
    }
  }
}

/// An analysis of a pair.
public protocol Analysis: Sendable {
  /// Says what is wrong with the options, if anything is.
  var problem: String? { get }

  /// Runs the analysis.
  ///
  /// - Parameters:
  ///   - pair: the models.
  ///   - texts: the tokens of at least one text.
  ///   - progress: called with the share that is done, 0…1, and what is being done.
  /// - Throws: `AnalysisError` for too short a text; `RecipeError`, `DecoderError` or `ComputeError`.
  func run<B: Backend>(
    _ pair: AnalysedPair<B>, texts: [[Int32]], progress: (_ share: Double, _ step: String) -> Void
  ) throws -> AnalysisReport
}

/// Why a text cannot be analysed.
public enum AnalysisError: Error, Sendable, Hashable, CustomStringConvertible {
  case tooShort(needed: Int, found: Int)

  public var description: String {
    switch self {
    case .tooShort(let needed, let found): "text: expected at least \(needed) tokens, found \(found)"
    }
  }
}
