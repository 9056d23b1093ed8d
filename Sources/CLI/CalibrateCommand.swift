// `kindred calibrate`: makes a plan from text.

import ArgumentParser
import Foundation
import Kindred
import KindredAttentionMapping

struct CalibrateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "calibrate",
    abstract: "Makes a plan by which a large model borrows a small one's attention.",
    discussion: """
      Mixtures of small heads are fitted to what each unit of the large model attends to in a text. The divergence that \
      mapping each unit causes then says how many of its newest positions keep keys of their own (--choose windows), \
      or which units are mapped at all (--choose units). Findings are kept in a journal beside the plan: an \
      interrupted calibration goes on where it stopped, and another budget with the same --journal measures only what \
      is new.
      """)

  @Option(name: [.short, .customLong("model")], help: ArgumentHelp("The large model.", valueName: "model"))
  var model: String

  @Option(
    name: [.short, .customLong("small")],
    help: ArgumentHelp("The small model; needed unless --far says otherwise.", valueName: "model"))
  var small: String?

  @Option(help: ArgumentHelp("A text; several are used in equal parts.", valueName: "file"))
  var text: [String]

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Share of keys that are dropped (with --choose units: of units that are mapped), 0 to 1 (default: "
        + "\(defaultRatio)).", valueName: "share"))
  var ratio: Double?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Map until both models' caches fit for a sequence of the context.", valueName: "bytes"))
  var kvBudget: Int?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Map as much as stays under this divergence, in nats a token.", valueName: "nats"))
  var maxKl: Double?

  @Option(
    help: ArgumentHelp(
      """
      What meets the budget: windows (all units are mapped, with near windows that are longer where mapping costs more) \
      or units (some are mapped, with the same near window) (default: windows, where the options allow them).
      """))
  var choose: CalibrationOptions.Choice?

  @Option(
    parsing: .unconditional,
    help: "Newest positions with keys of their own (with --choose windows: on average at least); 0 for none.")
  var nearWindow = 64

  @Option(parsing: .unconditional, help: "First positions with keys of their own, with a near window.")
  var sinks = 4

  @Option(
    help: ArgumentHelp(
      """
      What positions outside of the near window borrow: small (mixtures of the small model's heads), layer (rows of the \
      nearest lower layer with keys, as Shared Attention does) or nothing (as StreamingLLM does).
      """))
  var far = CalibrationOptions.Source.small

  @Option(help: "What is mapped together.")
  var unit = CalibrationOptions.Granularity.group

  @Option(parsing: .unconditional, help: "Small heads of one mixture, at most.")
  var mixture = 4

  @Option(parsing: .unconditional, help: "Tokens of text.")
  var tokens = 16_384

  @Option(parsing: .unconditional, help: "Tokens of a window: the length for which the plan is made.")
  var context = 1_024

  @Option(help: "Chooses windows and rows of the text.")
  var seed: UInt64 = 0

  @OptionGroup var engine: EngineOptions

  @Option(
    name: .customLong("small-kv-type"), help: "The KV cache type of the small model (default: that of --kv-type).")
  var smallKVType: KVType?

  @Option(
    name: .shortAndLong,
    help: ArgumentHelp(
      "Where the plan goes (default: beside the large model, where --recipe calibrated finds it).", valueName: "file"))
  var output: String?

  @Option(help: ArgumentHelp("Where findings are kept (default: beside the plan).", valueName: "file"))
  var journal: String?

  @Flag(help: "Print the result as one JSON object.")
  var json = false

  func validate() throws {
    if [ratio != nil, kvBudget != nil, maxKl != nil].count(where: \.self) > 1 {
      throw ValidationError("expected one of --ratio, --kv-budget and --max-kl, found several")
    }
    if nearWindow < 0 { throw ValidationError("--near-window: expected 0 or more positions, found \(nearWindow)") }
    if (small == nil) == (far == .small) {
      throw ValidationError(
        far == .small
          ? "--small: expected a small model (-s) to borrow from, or --far nothing, found neither"
          : "--small: expected none with --far \(far.rawValue), found one")
    }
    if small == nil, smallKVType != nil {
      throw ValidationError("--small-kv-type: expected a small model (-s), found none")
    }
    if output == nil, kvBudget != nil || maxKl != nil || far != .small {
      throw ValidationError("--output: expected a file with --kv-budget, --max-kl and --far, found none")
    }
    if let problem = options.problem { throw ValidationError("--\(problem)") }
  }

  private var choice: CalibrationOptions.Choice { choose ?? (nearWindow > 0 && far != .layer ? .windows : .units) }

  private var options: CalibrationOptions {
    var options = CalibrationOptions()
    options.tokens = tokens
    options.context = context
    options.mixture = mixture
    options.near = nearWindow == 0 ? nil : NearWindow(positions: nearWindow, sinks: sinks)
    options.choice = choice
    options.far = far
    options.granularity = unit
    options.budget = .ratio(ratio ?? defaultRatio)
    if let kvBudget { options.budget = .bytes(kvBudget) }
    if let maxKl { options.budget = .divergence(maxKl) }
    options.seed = seed
    options.kvType = engine.kvType
    options.smallKVType = smallKVType
    return options
  }

  func run() throws {
    let output = try output ?? calibratedPlanPath(model: model, small: small ?? "", ratio: ratio ?? defaultRatio)
    let journal = journal ?? output + ".journal"
    for path in [output, journal] { try checkWritable(path, inputs: text, models: [model, small]) }
    let texts = try text.map { try readStrictText($0) }
    let backend = try engine.backend()
    let (large, smallModel) = try engine.load(
      model, on: backend, small: small, on: backend, smallKVType: smallKVType)
    if let smallModel { try large.requireVocabulary(of: smallModel) }
    guard let tokenizer = large.tokenizer else { throw PromptError.noTokenizer(model: large.name) }
    let inputs = try RunInputs(
      model: model, small: small, data: [], instructionSet: backend.configuration.instructionSet)
    let calibration = try Calibration(
      large: large.decoder, small: smallModel?.decoder, texts: texts.map { tokenizer.encode($0) }, options: options,
      inputs: inputs.text, journalPath: journal)
    let start = ContinuousClock.now
    let line = RemainingTime()
    let result = try calibration.run { line.show($0.share, $0.step) }
    line.clear()
    // A plan that uses no small head fits any.
    let lender = result.plan.lentHeads.isEmpty ? nil : smallModel?.planned
    try PlanFile(large: large.planned, small: lender, plan: result.plan, notes: notes(result)).write(to: output)
    try report(result, of: output, seconds: (ContinuousClock.now - start).seconds)
  }

  /// How the plan was made, for the plan file.
  private func notes(_ result: CalibrationResult) -> [String: String] {
    [
      "made by": "kindred calibrate",
      "text": text.map { URL(fileURLWithPath: $0).lastPathComponent }.joined(separator: ", "),
      "options": "\(tokens) tokens in windows of \(context), chosen \(choice.rawValue), near windows of \(nearWindow) "
        + "and \(sinks) sinks, far \(far.rawValue), "
        + (far == .small ? "\(mixture) heads a mixture, " : "") + "unit \(unit.rawValue), seed \(seed)",
      "keys dropped": "\((100 * result.droppedKeys).formatted(digits: 1))% at \(context) tokens",
      "divergence": "\(result.divergence.formatted(digits: 5)) nats a token on windows kept back",
    ]
  }

  private func report(_ result: CalibrationResult, of output: String, seconds: Double) throws {
    if json {
      return try printJSON(
        CalibrationReport(
          plan: output, droppedKeys: result.droppedKeys, mappedUnits: result.mappedUnits, units: result.unitCount,
          kl: result.divergence, expectedKl: result.expectedDivergence, perplexityFactor: result.perplexityFactor,
          kvBytes: result.kvBytes, unmappedKvBytes: result.unmappedKVBytes, seconds: seconds))
    }
    print(
      "\(output): \((100 * result.droppedKeys).formatted(digits: 1))% of keys dropped at \(context) tokens, "
        + "\(result.mappedUnits) of \(result.unitCount) units mapped")
    print(
      "on text kept back: KL \(result.divergence.formatted(digits: 4)), "
        + "perplexity × \(result.perplexityFactor.formatted(digits: 4))"
        + (result.expectedDivergence.map { "; KL expected \($0.formatted(digits: 4))" } ?? ""))
    print("KV cache at \(context) tokens \(byteText(result.kvBytes)), unmapped \(byteText(result.unmappedKVBytes))")
    print("\(Int(seconds)) s")
  }
}

/// The result as JSON.
private struct CalibrationReport: Encodable {
  let plan: String
  let droppedKeys: Double
  let mappedUnits: Int
  let units: Int
  let kl: Double
  let expectedKl: Double?
  let perplexityFactor: Double
  let kvBytes: Int
  let unmappedKvBytes: Int
  let seconds: Double

  private enum CodingKeys: String, CodingKey {
    case plan, units, kl, seconds
    case droppedKeys = "keys_dropped"
    case mappedUnits = "mapped_units"
    case expectedKl = "expected_kl"
    case perplexityFactor = "perplexity_factor"
    case kvBytes = "kv_bytes"
    case unmappedKvBytes = "kv_bytes_unmapped"
  }
}

extension CalibrationOptions.Choice: ExpressibleByArgument {}
extension CalibrationOptions.Granularity: ExpressibleByArgument {}
extension CalibrationOptions.Source: ExpressibleByArgument {}
