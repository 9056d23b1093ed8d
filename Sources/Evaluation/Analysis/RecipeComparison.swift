// Several recipes on the same windows of a text: what each costs in perplexity, beside the unmapped model.

import Foundation
import KindredAttentionMapping
import KindredCompute
import KindredGeneration

/// The windows on which recipes are compared.
public struct ComparisonWindows: Sendable, Hashable {
  /// Tokens of a window, each run from an empty cache.
  public var context = 512
  /// The most windows.
  public var maxWindows = 4

  public init() {}

  /// Says what is wrong with the options, if anything is.
  var problem: String? {
    if context < 2 { return "context: expected at least 2 tokens, found \(context)" }
    return maxWindows < 1 ? "max-windows: expected at least 1, found \(maxWindows)" : nil
  }

  /// Scores all tokens that run mapped.
  func options(scoreFrom: Int) -> PerplexityOptions {
    var options = PerplexityOptions()
    options.context = context
    options.stride = context
    options.maxWindows = maxWindows
    options.scoreFrom = scoreFrom
    return options
  }

  /// What each recipe gives on a text.
  ///
  /// - Throws: `AnalysisError` where the text is shorter than a window; `RecipeError`, `DecoderError`, `ComputeError`.
  func results<B: Backend>(
    _ recipes: [PaperRecipe], _ pair: AnalysedPair<B>, tokens: [Int32], progress: (Double) -> Void
  ) throws -> [PerplexityResult] {
    guard context > pair.establishmentTokens else {
      throw RecipeError(
        description:
          "context: expected more than the \(pair.establishmentTokens) tokens that establish a map, found \(context)")
    }
    guard tokens.count >= context else { throw AnalysisError.tooShort(needed: context, found: tokens.count) }
    let options = options(scoreFrom: pair.establishmentTokens)
    var sessionOptions = Session<B>.Options()
    sessionOptions.kvType = pair.kvType
    sessionOptions.chunkRows = options.chunk
    var results: [PerplexityResult] = []
    // As many caches are held at a time.
    let group = 8
    for first in stride(from: 0, to: recipes.count, by: group) {
      let part = recipes[first..<min(first + group, recipes.count)]
      results += try PerplexityEvaluation(
        pair.large, mappings: part.map { .established(small: pair.small, recipe: $0) }, options: options,
        sessionOptions: sessionOptions
      ).runAll(tokens) { done, total, _ in
        progress((Double(first) + Double(part.count) * Double(done) / Double(total)) / Double(recipes.count))
      }
    }
    return results
  }
}

extension PerplexityResult {
  /// Log-perplexity of the unmapped model.
  var unmappedNLL: Double { log(unmappedPerplexity ?? .nan) }

  /// Log-perplexity, its factor over the unmapped model's perplexity, and the divergence, as cells.
  var costs: [AnalysisTable.Cell] {
    [.number(nll), .number(exp(nll - unmappedNLL)), .number(klToUnmapped ?? .nan), .number(top1Agreement ?? .nan)]
  }

  static let costColumns = ["log_perplexity", "perplexity_factor", "kl_to_unmapped", "top1_agreement"]
}
