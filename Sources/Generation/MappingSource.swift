// How a user says where attention comes from: by a recipe, or by a plan file; and what becomes of it once models are
// there.

import KindredAttentionMapping
import KindredCompute
import KindredTransformer

/// A recipe or a plan, not yet tied to loaded models.
public enum MappingSource: Sendable, Hashable {
  case recipe(PaperRecipe)
  case plan(PlanFile)

  /// Refuses what does not fit the models' shapes, before their weights are read.
  ///
  /// - Throws: `RecipeError`, `LayerSelection.SelectionError` or `PlanError`.
  public func check(large: OpenedModel, small: OpenedModel?) throws {
    switch self {
    case .recipe(let recipe): try recipe.check(layerCount: large.configuration.layerCount)
    case .plan(let file): try file.validate(large: large.planned, small: small?.planned)
    }
  }

  /// How a session of loaded models runs; `nil` where a recipe has no small model to borrow from.
  ///
  /// - Throws: `PlanError` for a plan of other models, `VocabularyMismatch` for a small model of another series.
  public func mapping<B: Backend>(
    large: LanguageModel<B>, small: LanguageModel<B>?
  ) throws -> Session<B>.Mapping? {
    if let small { try large.requireVocabulary(of: small) }
    switch self {
    case .recipe(let recipe):
      return small.map { .established(small: $0.decoder, recipe: recipe) }
    case .plan(let file):
      try file.validate(large: large.planned, small: small?.planned)
      return .planned(small: file.small == nil ? nil : small?.decoder, plan: file.plan)
    }
  }

  /// The layers with a unit that does not keep all its keys, of a model with `layerCount` layers; `nil` where only a
  /// prompt tells.
  public func mappedLayers(of layerCount: Int) throws -> [Int]? {
    switch self {
    case .recipe(let recipe): try recipe.layers.layers(of: layerCount)
    case .plan(let file): Set(file.plan.mappedUnits.map(\.layer)).sorted()
    }
  }
}

extension OpenedModel {
  /// The model as a plan file names it, as far as can be told before its tokenizer is read.
  fileprivate var planned: PlannedModel { PlannedModel(name: name, configuration: configuration, vocabulary: nil) }
}
