// The options by which commands name models and how attention is borrowed, and the loading that follows.

import ArgumentParser
import Foundation
import Kindred
import KindredTransformer

/// The recipe by which attention is mapped.
enum Recipe: String, ExpressibleByArgument, CaseIterable {
  /// IAM's: cosine map on the first tokens of the prompt.
  case paper
  /// A plan that `kindred calibrate` has put beside the large model.
  case calibrated
}

/// The share that borrows where the user gives none.
let defaultRatio = 0.3

struct ModelOptions: ParsableArguments {
  @Option(name: [.short, .customLong("model")], help: ArgumentHelp("The model.", valueName: "model"))
  var model: String

  @Option(
    name: [.short, .customLong("small")],
    help: ArgumentHelp("A small model of the same series, which lends its attention.", valueName: "model"))
  var small: String?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      """
      Share of the large model's layers that borrow, 0 to 1; with --recipe calibrated the ratio that was calibrated \
      (default: 0.3).
      """, valueName: "share"))
  var ratio: Double?

  @Option(help: ArgumentHelp("The layers that borrow instead of --ratio, such as 4-11,20.", valueName: "list"))
  var mapLayers: String?

  @Option(
    help: ArgumentHelp(
      """
      How attention is mapped: paper (a cosine map found on the first tokens of the prompt) or calibrated (the plan that \
      kindred calibrate has put beside the large model for the same --ratio).
      """))
  var recipe: Recipe = .paper

  @OptionGroup var recipeOptions: RecipeOptions

  @Option(help: ArgumentHelp("A plan of the attention instead of a recipe.", valueName: "file"))
  var plan: String?

  @OptionGroup var engine: EngineOptions

  @Option(
    name: .customLong("small-kv-type"), help: "The KV cache type of the small model (default: that of --kv-type).")
  var smallKVType: KVType?

  func validate() throws {
    let layerArguments = (ratio == nil ? [] : ["--ratio"]) + (mapLayers == nil ? [] : ["--map-layers"])
    if let given = (layerArguments + recipeOptions.given).first {
      if small == nil { throw ValidationError("\(given): expected a small model (-s) to borrow from, found none") }
      if plan != nil { throw ValidationError("expected --plan or a recipe's \(given), found both") }
    }
    if small == nil, smallKVType != nil {
      throw ValidationError("--small-kv-type: expected a small model (-s), found none")
    }
    if mapLayers != nil, ratio != nil || recipeOptions.strategy != nil {
      throw ValidationError("expected --map-layers or --ratio and --strategy, found both")
    }
    if recipe == .calibrated {
      if small == nil {
        throw ValidationError("--recipe calibrated: expected a small model (-s) to borrow from, found none")
      }
      if plan != nil { throw ValidationError("expected --plan or --recipe calibrated, found both") }
      if let given = ((mapLayers == nil ? [] : ["--map-layers"]) + recipeOptions.given).first {
        throw ValidationError("--recipe calibrated: expected --ratio, found \(given)")
      }
    }
    if let ratio, !(0...1).contains(ratio) {
      throw ValidationError("--ratio: expected a number from 0 to 1, found \(ratio)")
    }
    do { _ = try layers } catch { throw ValidationError("--map-layers: \(error)") }
    if let problem = try recipeOptions.recipe(layers).problem { throw ValidationError("--\(problem)") }
  }

  private var layers: LayerSelection {
    get throws {
      if let mapLayers { return try LayerSelection(list: mapLayers) }
      return .share(recipeOptions.strategy ?? .back, ratio: ratio ?? defaultRatio)
    }
  }

  private var source: MappingSource {
    get throws {
      if let plan = try planPath { return .plan(try PlanFile(path: plan)) }
      return .recipe(try paperRecipe)
    }
  }

  /// The paper's recipe as the options give it.
  var paperRecipe: PaperRecipe {
    get throws { try recipeOptions.recipe(layers) }
  }

  /// The plan file that is used, if any.
  var planPath: String? {
    get throws {
      guard recipe == .calibrated, let small else { return plan }
      let share = ratio ?? defaultRatio
      let path = try calibratedPlanPath(model: model, small: small, ratio: share)
      guard FileManager.default.fileExists(atPath: path) else {
        throw FileError(
          path: path, expected: "a calibrated plan",
          found: "none; `kindred calibrate -m \(model) -s \(small) --ratio \(share) --text FILE` makes it")
      }
      return path
    }
  }

  /// The share of the large model's published layers that are present: below 1 for random weights of few layers.
  var layerShare: Double {
    get throws {
      guard let random = try randomModel else { return 1 }
      return Double(random.configuration.layerCount) / Double(random.publishedLayerCount)
    }
  }

  /// The layers of the large model's published shape, where its weights are random.
  var publishedLayerCount: Int? { get throws { try randomModel?.publishedLayerCount } }

  private var randomModel: RandomModel? {
    get throws { model.hasPrefix("random:") ? try RandomModel(model) : nil }
  }

  /// Whether no option says what borrows.
  var choosesNothing: Bool { ratio == nil && plan == nil && mapLayers == nil && recipe == .paper }

  /// Loads the models, with progress on standard error.
  func load() throws -> LoadedModels<CPUBackend> {
    let backend = try engine.backend()
    return try load(large: backend, small: backend)
  }

  /// Loads the models so that the operations of each can be timed.
  func loadProfiled() throws -> LoadedModels<ProfilingBackend<CPUBackend>> {
    let backend = try engine.backend()
    return try load(large: ProfilingBackend(backend), small: ProfilingBackend(backend))
  }

  private func load<B: Backend>(large largeBackend: B, small smallBackend: B) throws -> LoadedModels<B> {
    let start = ContinuousClock.now
    let source = try source
    let (large, smallModel) = try engine.load(
      model, on: largeBackend, small: small, on: smallBackend, smallKVType: smallKVType, check: source.check)
    let mapping = try source.mapping(large: large, small: smallModel)
    return LoadedModels(
      large: large, small: smallModel, mapping: mapping, plan: try planPath,
      mappedLayers: mapping == nil ? [] : try source.mappedLayers(of: large.decoder.configuration.layerCount),
      kvType: engine.kvType, smallKVType: smallKVType ?? engine.kvType,
      loadSeconds: (ContinuousClock.now - start).seconds)
  }
}

/// Finds a model that the user names.
func openModel(_ argument: String) throws -> OpenedModel {
  if argument.hasPrefix("random:") { return OpenedModel(random: try RandomModel(argument)) }
  return try OpenedModel(path: ModelStore().locate(argument))
}

/// How every command computes that runs models.
struct EngineOptions: ParsableArguments {
  @Option(help: "The type of stored keys and values.")
  var kvType: KVType = .f16

  @Option(help: "Threads to compute with (default: physical cores).")
  var threads: Int?

  func validate() throws {
    if let threads, !(1...1024).contains(threads) {
      throw ValidationError("--threads: expected 1 to 1024, found \(threads)")
    }
  }

  func backend() throws -> CPUBackend { try CPUBackend(threads: threads) }

  /// Loads a model and, if there is one, the small model that lends to it.
  ///
  /// - Parameter check: refuses what does not fit, before gigabytes are read.
  func load<B: Backend>(
    _ model: String, on largeBackend: B, small: String?, on smallBackend: B, smallKVType: KVType? = nil,
    check: (OpenedModel, OpenedModel?) throws -> Void = { _, _ in }
  ) throws -> (large: LanguageModel<B>, small: LanguageModel<B>?) {
    let opened = (large: try openModel(model), small: try small.map { try openModel($0) })
    try opened.large.check(kvType: kvType)
    try opened.small?.check(kvType: smallKVType ?? kvType)
    try check(opened.large, opened.small)
    return (
      try loadModel(opened.large, on: largeBackend), try opened.small.map { try loadModel($0, on: smallBackend) }
    )
  }
}

/// Where the calibrated plan of two models stands.
func calibratedPlanPath(model: String, small: String, ratio: Double) throws -> String {
  for argument in [model, small] where argument.hasPrefix("random:") {
    throw FileError(
      path: argument, expected: "a model file, beside which plans stand", found: "random weights")
  }
  let store = ModelStore()
  return PlanFile.calibratedPath(model: try store.locate(model), small: try store.locate(small), ratio: ratio)
}

/// Loads a model, with progress on standard error.
func loadModel<B: Backend>(_ opened: OpenedModel, on backend: B) throws -> LanguageModel<B> {
  let line = StatusLine()
  defer { line.clear() }
  return try LanguageModel(opened, backend: backend) { line.show("loading \(opened.name): \(Int($0 * 100))%") }
}

extension KVType: ExpressibleByArgument {}

/// The models of a command, and how they run together.
struct LoadedModels<B: Backend> {
  let large: LanguageModel<B>
  let small: LanguageModel<B>?
  let mapping: Session<B>.Mapping?
  /// The plan file.
  let plan: String?
  /// `nil` where only a prompt tells.
  let mappedLayers: [Int]?
  let kvType: KVType
  let smallKVType: KVType
  let loadSeconds: Double

  var sessionOptions: Session<B>.Options {
    var options = Session<B>.Options()
    options.kvType = kvType
    options.smallKVType = smallKVType
    return options
  }

  func session() throws -> Session<B> {
    try Session(decoder: large.decoder, mapping: mapping, options: sessionOptions)
  }

  /// The conditions that every report states.
  var conditions: RunConditions {
    let backend = large.decoder.backend.configuration
    return RunConditions(
      model: large.shortName, smallModel: small?.shortName, plan: plan, mappedLayers: mappedLayers,
      weightBytes: large.decoder.weights.byteCount + (small?.decoder.weights.byteCount ?? 0), kvType: kvType,
      smallKVType: small == nil ? nil : smallKVType, loadSeconds: loadSeconds, threads: backend.threads,
      isa: backend.instructionSet)
  }
}

/// The conditions of a run, in every command's JSON.
struct RunConditions: Encodable {
  var model: String
  var smallModel: String?
  var plan: String?
  var mappedLayers: [Int]?
  var weightBytes: Int
  var kvType: KVType
  /// `nil` without a small model.
  var smallKVType: KVType?
  var loadSeconds: Double
  var threads: Int
  var isa: String

  private enum CodingKeys: String, CodingKey {
    case model, plan, threads, isa
    case smallModel = "small_model"
    case mappedLayers = "mapped_layers"
    case weightBytes = "weight_bytes"
    case kvType = "kv_type"
    case smallKVType = "small_kv_type"
    case loadSeconds = "load_seconds"
  }
}

/// Two parts of a report as one JSON object.
struct Joined<First: Encodable, Second: Encodable>: Encodable {
  let first: First
  let second: Second

  init(_ first: First, _ second: Second) {
    self.first = first
    self.second = second
  }

  func encode(to encoder: any Encoder) throws {
    try first.encode(to: encoder)
    try second.encode(to: encoder)
  }
}
