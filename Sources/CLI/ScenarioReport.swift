// `kindred bench --scenario`: running it and printing it.

import Foundation
import Kindred
import KindredEvaluation

extension BenchCommand {
  /// Runs a scenario by the large model alone and, where something lends to it, by the pair.
  func runScenario(_ name: String) throws {
    var scenario = try Scenario(named: name).scaled(by: scale ?? 1)
    var models = models
    if models.choosesNothing {
      models.ratio = scenario.ratio
      models.plan = scenario.plan
      if models.small == nil { models.ratio = nil }
      try models.validate()
    }
    let isRecipe = models.plan == nil && models.mapLayers == nil && models.small != nil
    scenario.ratio = isRecipe ? models.ratio ?? defaultRatio : nil
    let loaded = try models.loadProfiled()
    let line = RemainingTime()
    let result = try ScenarioBenchmark(
      loaded.large, mapping: loaded.mapping, scenario: scenario, repeats: repeats,
      publishedLayers: models.publishedLayerCount, sessionOptions: loaded.sessionOptions
    ).run { done, all in
      line.show(Double(done) / Double(all), "run \(done + 1) of \(all)")
    }
    line.clear()
    let conditions = loaded.conditions
    if json {
      let plans = try models.planPath.map { [EvaluationMethod.plan(path: $0)] } ?? []
      let provenance = try RunProvenance(loaded, models: models, methods: plans, data: [], seed: 0).finished()
      return try printJSON(Joined(["scenario": result], Joined(["provenance": provenance], conditions)))
    }
    printTitle(conditions, batch: scenario.sequences)
    for sentence in result.conditions { print(sentence) }
    print("\n\(scenario.name)")
    let columns = ScenarioResult.comparisonColumns
    printColumns([columns] + result.comparison, rightAligned: Set(columns.indices.dropFirst()))
  }
}
