// The options of the paper's recipe beside its ratio: how heads are compared, which layers borrow, on which tokens.

import ArgumentParser
import KindredAttentionMapping

struct RecipeOptions: ParsableArguments {
  @Option(help: ArgumentHelp("By what heads are compared (default: cosine).", valueName: "measure"))
  var similarity: SimilarityMeasure?

  @Option(
    help: ArgumentHelp(
      """
      Which layers borrow, up to the ratio (default: back). Both regions begin with the last fifth of the layers and go \
      on from a fifth of the depth, backwards (down) or upwards (up).
      """, valueName: "strategy"))
  var strategy: LayerStrategy?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Tokens of the prompt on which the map is established, unmapped (default: 100).", valueName: "tokens"))
  var establishTokens: Int?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "The fewest tokens that establish a map; after a shorter prompt the large model first generates alone (default: 20).",
      valueName: "tokens"))
  var minimumTokens: Int?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Find the map anew each time so many tokens are generated, on the newest --establish-tokens (default: never).",
      valueName: "tokens"))
  var remapEvery: Int?

  /// The names of the options that were given.
  var given: [String] {
    [
      similarity.map { _ in "--similarity" }, strategy.map { _ in "--strategy" },
      establishTokens.map { _ in "--establish-tokens" }, minimumTokens.map { _ in "--minimum-tokens" },
      remapEvery.map { _ in "--remap-every" },
    ].compactMap(\.self)
  }

  /// The recipe for the chosen layers.
  func recipe(_ layers: LayerSelection) -> PaperRecipe {
    var recipe = PaperRecipe(layers: layers)
    if let similarity { recipe.similarity = similarity }
    if let establishTokens { recipe.establishmentTokens = establishTokens }
    recipe.minimumTokens = minimumTokens ?? min(recipe.minimumTokens, max(1, recipe.establishmentTokens))
    recipe.remapEvery = remapEvery
    return recipe
  }
}

extension SimilarityMeasure: ExpressibleByArgument {}
extension LayerStrategy: ExpressibleByArgument {}
