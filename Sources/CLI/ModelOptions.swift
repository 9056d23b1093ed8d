// The options by which commands name models and how attention is borrowed, and the loading that follows.

import ArgumentParser
import Foundation
import Kindred
import KindredTransformer

/// The recipe by which attention is mapped.
enum Recipe: String, ExpressibleByArgument, CaseIterable {
  /// IAM's: cosine map on the first tokens of the prompt.
  case paper
}

struct ModelOptions: ParsableArguments {
  @Option(name: [.short, .customLong("model")], help: ArgumentHelp("The model.", valueName: "model"))
  var model: String

  @Option(
    name: [.short, .customLong("small")],
    help: ArgumentHelp("A small model of the same series, which lends its attention.", valueName: "model"))
  var small: String?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Share of the large model's layers that borrow, 0 to 1 (default: 0.3).", valueName: "share"))
  var ratio: Double?

  @Option(help: ArgumentHelp("The layers that borrow instead of --ratio, such as 4-11,20.", valueName: "list"))
  var mapLayers: String?

  @Option(help: "How attention is mapped.")
  var recipe: Recipe = .paper

  @Option(help: ArgumentHelp("A plan of the attention instead of a recipe.", valueName: "file"))
  var plan: String?

  @Option(help: "The type of stored keys and values.")
  var kvType: KVType = .f16

  @Option(name: .customLong("small-kv-type"), help: "The type of the small model's (default: that of --kv-type).")
  var smallKVType: KVType?

  @Option(help: "Threads to compute with (default: physical cores).")
  var threads: Int?

  func validate() throws {
    if small == nil, ratio != nil || mapLayers != nil {
      throw ValidationError("--ratio and --map-layers: expected a small model (-s) to borrow from, found none")
    }
    if small == nil, smallKVType != nil {
      throw ValidationError("--small-kv-type: expected a small model (-s), found none")
    }
    if ratio != nil, mapLayers != nil { throw ValidationError("expected --ratio or --map-layers, found both") }
    if plan != nil, ratio != nil || mapLayers != nil {
      throw ValidationError("expected --plan or a recipe's --ratio or --map-layers, found both")
    }
    if let threads, !(1...1024).contains(threads) {
      throw ValidationError("--threads: expected 1 to 1024, found \(threads)")
    }
    if let ratio, !(0...1).contains(ratio) {
      throw ValidationError("--ratio: expected a number from 0 to 1, found \(ratio)")
    }
    do { _ = try layers } catch { throw ValidationError("--map-layers: \(error)") }
  }

  private var layers: LayerSelection {
    get throws { try mapLayers.map { try LayerSelection(list: $0) } ?? .back(ratio: ratio ?? 0.3) }
  }

  private var source: MappingSource {
    get throws { try plan.map { .plan(try PlanFile(path: $0)) } ?? .recipe(PaperRecipe(layers: layers)) }
  }

  /// The share of the large model's published layers that are present: below 1 for random weights of few layers.
  var layerShare: Double {
    get throws {
      guard model.hasPrefix("random:") else { return 1 }
      let random = try RandomModel(model)
      return Double(random.configuration.layerCount) / Double(random.publishedLayerCount)
    }
  }

  /// Loads the models, with progress on standard error.
  func load() throws -> LoadedModels<CPUBackend> {
    let backend = try CPUBackend(threads: threads)
    return try load(large: backend, small: backend)
  }

  /// Loads the models so that the operations of each can be timed.
  func loadProfiled() throws -> LoadedModels<ProfilingBackend<CPUBackend>> {
    let backend = try CPUBackend(threads: threads)
    return try load(large: ProfilingBackend(backend), small: ProfilingBackend(backend))
  }

  private func load<B: Backend>(large largeBackend: B, small smallBackend: B) throws -> LoadedModels<B> {
    let start = ContinuousClock.now
    let openedLarge = try open(model)
    let openedSmall = try small.map { try open($0) }
    // What does not fit is said before gigabytes are read.
    let source = try source
    try source.check(large: openedLarge, small: openedSmall)
    try openedLarge.check(kvType: kvType)
    try openedSmall?.check(kvType: smallKVType ?? kvType)
    let large = try load(openedLarge, on: largeBackend)
    let smallModel = try openedSmall.map { try load($0, on: smallBackend) }
    let mapping = try source.mapping(large: large, small: smallModel)
    return LoadedModels(
      large: large, small: smallModel, mapping: mapping, plan: plan,
      mappedLayers: mapping == nil ? [] : try source.mappedLayers(of: large.decoder.configuration.layerCount),
      kvType: kvType, smallKVType: smallKVType ?? kvType, loadSeconds: (ContinuousClock.now - start).seconds)
  }

  private func open(_ argument: String) throws -> OpenedModel {
    if argument.hasPrefix("random:") { return OpenedModel(random: try RandomModel(argument)) }
    return try OpenedModel(path: ModelStore().locate(argument))
  }

  private func load<B: Backend>(_ opened: OpenedModel, on backend: B) throws -> LanguageModel<B> {
    let line = StatusLine()
    defer { line.clear() }
    return try LanguageModel(opened, backend: backend) { line.show("loading \(opened.name): \(Int($0 * 100))%") }
  }
}

extension KVType: ExpressibleByArgument {}

/// The models of a command, and how they run together.
struct LoadedModels<B: Backend> {
  let large: LanguageModel<B>
  let small: LanguageModel<B>?
  let mapping: Session<B>.Mapping?
  /// The plan file.
  let plan: String?
  let mappedLayers: [Int]
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
      model: large.name, smallModel: small?.name, plan: plan, mappedLayers: mappedLayers,
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
  var mappedLayers: [Int]
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
