// The options by which evaluations name methods and keep what they found.

import ArgumentParser
import Foundation
import Kindred
import KindredEvaluation
import KindredTransformer

struct MethodOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      """
      What is compared: \(EvaluationMethod.syntax), with commas between (default: unmapped, and with -s also small and \
      paper:0.3, or what --ratio, --recipe or --plan says). R is the share of layers that borrow by the paper's recipe; \
      random draws their small heads; shared and streaming are Shared Attention for the same layers and StreamingLLM in \
      as many bytes.
      """, valueName: "list"))
  var methods: String?

  @Option(help: "Seed of bootstrap intervals and of random:R.")
  var seed: UInt64 = 0

  @Option(
    help: ArgumentHelp(
      """
      Where answers are kept as they are found: run again, an interrupted evaluation goes on where it stopped (default: \
      beside the output).
      """, valueName: "file"))
  var journal: String?

  @Option(name: .shortAndLong, help: ArgumentHelp("Where the result goes as JSON.", valueName: "file"))
  var output: String?

  @Flag(help: "Print the result as one JSON object.")
  var json = false

  /// Refuses what cannot be run.
  func validate(with models: ModelOptions) throws {
    do {
      for method in try named ?? [] where method.needsSmallModel && models.small == nil {
        throw ValidationError("--methods: \(method.name): expected a small model (-s), found none")
      }
    } catch let error as MethodError { throw ValidationError("--methods: \(error)") }
  }

  /// The methods that `--methods` names.
  private var named: [EvaluationMethod]? {
    get throws(MethodError) {
      guard let methods else { return nil }
      var list: [EvaluationMethod] = []
      for text in methods.split(separator: ",", omittingEmptySubsequences: false) {
        let method = try EvaluationMethod(String(text))
        guard !list.contains(where: { $0.name == method.name }) else {
          throw MethodError(description: "expected each method once, found \(method.name) twice")
        }
        list.append(method)
      }
      return list
    }
  }

  /// The methods to run.
  func list(for models: ModelOptions) throws -> [EvaluationMethod] {
    if let named = try named { return named }
    let plan = try models.planPath.map { EvaluationMethod.plan(path: $0) }
    guard models.small != nil else { return [.unmapped] + [plan].compactMap(\.self) }
    return [.unmapped, .small, plan ?? .paper(ratio: models.ratio ?? defaultRatio)]
  }

  /// What the methods run on.
  func models(_ loaded: LoadedModels<CPUBackend>, options: ModelOptions) throws -> MethodModels<CPUBackend> {
    MethodModels(large: loaded.large, small: loaded.small, recipe: try options.paperRecipe, seed: seed)
  }

  var journalPath: String? { journal ?? output.map { $0 + ".journal" } }

  /// Makes sure that the result can be written, before anything takes time.
  ///
  /// - Parameter data: what is read besides models and plans.
  func checkOutput(_ models: ModelOptions, data: String) throws {
    guard let output else { return }
    let plans: [String] = try list(for: models).compactMap { if case .plan(let path) = $0 { path } else { nil } }
    try checkWritable(output, inputs: [data] + plans, models: [models.model, models.small])
  }

  /// Writes and prints a result.
  func report(_ result: EvaluationResult) throws {
    if let output {
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes, .prettyPrinted]
      try encoder.encode(result).write(to: URL(fileURLWithPath: output).resolvingSymlinksInPath(), options: .atomic)
    }
    if json { return try printJSON(result) }
    printTable(of: result)
  }
}
