// Calibration: from text to a plan (`docs/MAPPING.md`). Mixtures are solved for every unit from sums over
// sampled rows; the divergence that mapping units causes then says how long the near window of each is to be, or which
// of them are mapped.
//
// Windows of the text have three parts to play: those kept back measure what a whole plan does, and are used for nothing
// else; all others fit mixtures; the first few of these choose windows or units, too.

import Foundation
import KindredAttention
import KindredCompute
import KindredTransformer

/// How a plan is made.
public struct CalibrationOptions: Sendable, Hashable {
  /// What is mapped together.
  public enum Granularity: String, Sendable, CaseIterable, Codable {
    /// A KV head of a layer.
    case group
    /// All KV heads of a layer.
    case layer
  }

  /// What mapped units attend to at far positions.
  public enum Source: String, Sendable, CaseIterable, Codable {
    /// Mixtures of the small model's heads.
    case small
    /// The rows of the nearest lower layer that keeps the unit's keys (Shared Attention, arXiv 2407.12866).
    case layer
    /// Nothing (StreamingLLM, arXiv 2309.17453); needs a near window.
    case nothing
  }

  /// What is chosen so that a budget is met.
  public enum Choice: String, Sendable, CaseIterable, Codable {
    /// The length of each unit's near window. All units are mapped, but for those whose window would reach (nearly)
    /// across the context.
    case windows
    /// The units that are mapped, with near windows that are all alike or without any.
    case units
  }

  /// How much is mapped.
  public enum Budget: Sendable, Hashable {
    /// 0 to 1: the share of keys that are not stored at the length of the context where windows are chosen, the share of
    /// units that are mapped where units are.
    case ratio(Double)
    /// Bytes of both models' caches for a sequence as long as the context: as little is mapped as that takes.
    case bytes(Int)
    /// Mean divergence from the unmapped model on windows kept back, in nats: as much is mapped as stays under it.
    case divergence(Double)
  }

  /// Tokens of calibration text in all.
  public var tokens = 16_384
  /// Tokens of a window.
  public var context = 1_024
  /// Small heads of one unit's mixture, at most.
  public var mixture = 4
  /// The window of own keys with which units are measured: that of all units where units are chosen, the least that
  /// windows have on average where their lengths are. `nil` for pure mapping, which chooses units.
  public var near: NearWindow? = NearWindow(positions: 64, sinks: 4)
  /// What meets the budget; ``Choice/windows`` needs a near window and something else than lower layers to borrow from.
  public var choice = Choice.windows
  /// What far positions borrow.
  public var far = Source.small
  /// What is mapped together.
  public var granularity = Granularity.group
  /// How much is mapped.
  public var budget = Budget.ratio(0.5)
  /// Chooses windows and rows.
  public var seed: UInt64 = 0
  /// The type of stored keys and values.
  public var kvType = KVType.f16
  /// The type of the small model's; ``kvType``, where `nil`.
  public var smallKVType: KVType?

  public init() {}

  /// Says what is wrong with the options, if anything is.
  public var problem: String? {
    let limit = DecoderConfiguration.sizeLimit
    if !(32...limit).contains(context) { return "context: expected 32 to \(limit) tokens, found \(context)" }
    if !(3 * context...3 * limit).contains(tokens) {
      return "tokens: expected \(3 * context) (three windows) to \(3 * limit), found \(tokens)"
    }
    if !(1...AttentionPlan.mixtureLimit).contains(mixture) {
      return "mixture: expected 1 to \(AttentionPlan.mixtureLimit) small heads, found \(mixture)"
    }
    if near == nil, far == .nothing { return "near-window: expected a window where nothing is borrowed, found none" }
    if choice == .windows, near == nil { return "choose windows: expected a near window, found none" }
    if choice == .windows, far == .layer {
      return "choose windows: expected small or nothing as the far source, found layer"
    }
    if let near {
      if !(1..<context).contains(near.positions) {
        return "near-window: expected 1 to \(context - 1) positions, found \(near.positions)"
      }
      if !(0..<context).contains(near.sinks) {
        return "sinks: expected 0 to \(context - 1) positions, found \(near.sinks)"
      }
      if near.positions + near.sinks >= context {
        return "near-window and sinks: expected fewer positions than the context's \(context), found "
          + "\(near.positions + near.sinks)"
      }
    }
    switch budget {
    case .ratio(let ratio):
      return (0...1).contains(ratio) ? nil : "ratio: expected a number from 0 to 1, found \(ratio)"
    case .bytes(let bytes): return bytes > 0 ? nil : "kv-budget: expected more than 0 bytes, found \(bytes)"
    case .divergence(let limit):
      return limit > 0 && limit.isFinite ? nil : "max-kl: expected more than 0 nats, found \(limit)"
    }
  }
}

/// How far a calibration is.
public struct CalibrationProgress: Sendable {
  /// What is being done.
  public var step: String
  /// The share of the work that is done, 0 to 1.
  public var share: Double
}

/// A plan and what was measured of it.
public struct CalibrationResult: Sendable {
  /// What was chosen.
  public var plan: AttentionPlan
  /// The share of the large model's keys that a sequence as long as the context does not store.
  public var droppedKeys: Double
  /// Units that are mapped.
  public var mappedUnits: Int
  /// All units.
  public var unitCount: Int
  /// Mean KL divergence from the unmapped model on windows kept back, in nats.
  public var divergence: Double
  /// The KL that was expected from the measurements that chose the units, on the text that chose them; `nil` where
  /// none were chosen.
  public var expectedDivergence: Double?
  /// The factor on perplexity on windows kept back.
  public var perplexityFactor: Double
  /// Bytes of both models' caches for a sequence as long as the context.
  public var kvBytes: Int
  /// Bytes of the large model's cache without mapping.
  public var unmappedKVBytes: Int
}

/// Calibrates a pair of models.
public struct Calibration<B: Backend> {
  package let pair: CalibrationPair<B>
  package let options: CalibrationOptions
  package let windows: [[Int32]]
  /// Texts from which windows are taken in turn.
  private let textCount: Int
  /// What can be mapped.
  package let units: [MappingUnit]
  package let journal: CalibrationJournal

  /// What is mapped together: KV heads of a layer.
  package struct MappingUnit: Sendable, Hashable {
    package let layer: Int
    package let groups: [Int]
  }

  /// Rows of all windows together, and of each at least, from which mixtures are solved.
  private static var fittedRows: (all: Int, each: Int) { (1_024, 64) }
  /// Rows of a window whose predictions are compared.
  private static var scoredRows: Int { 256 }
  /// Rows before which nothing is scored.
  private var firstScoredRow: Int { min(100, options.context / 4) }

  /// - Parameters:
  ///   - large: the model that borrows.
  ///   - small: the model that lends, of the same vocabulary; `nil` where far positions borrow nothing from it.
  ///   - texts: tokens of calibration texts, of which equal parts are used as far as they reach.
  ///   - options: how the plan is made.
  ///   - inputs: what tells the models apart; a journal of others is started anew.
  ///   - journalPath: where findings are kept.
  /// - Throws: `CalibrationError` for options or texts that will not do.
  public init(
    large: DecoderModel<B>, small: DecoderModel<B>?, texts: [[Int32]], options: CalibrationOptions, inputs: String,
    journalPath: String
  ) throws {
    if let problem = options.problem { throw CalibrationError(description: problem) }
    guard (small != nil) == (options.far == .small) else {
      throw CalibrationError(
        description:
          "small: expected \(options.far == .small ? "a small model to borrow from, found none" : "none where far is \(options.far.rawValue), found one")"
      )
    }
    let limit = min(large.configuration.contextLength, small?.configuration.contextLength ?? .max)
    guard options.context <= limit else {
      throw CalibrationError(
        description: "context: expected at most the models' \(limit) tokens, found \(options.context)")
    }
    pair = CalibrationPair(large: large, small: small, kvType: options.kvType, smallKVType: options.smallKVType)
    self.options = options
    windows = try Self.windows(of: texts, options: options)
    textCount = texts.count
    let kvHeads = large.configuration.attention.kvHeads
    // Below the first layer there is none to borrow from.
    units = ((options.far == .layer ? 1 : 0)..<large.configuration.layerCount).flatMap { layer in
      options.granularity == .layer
        ? [MappingUnit(layer: layer, groups: Array(0..<kvHeads))]
        : (0..<kvHeads).map { MappingUnit(layer: layer, groups: [$0]) }
    }
    var hash = InputHash()
    hash.add(inputs)
    hash.add(
      "\(options.context) \(options.mixture) \(options.near.map { "\($0)" } ?? "none") \(options.far) \(options.granularity) "
        + "\(options.seed) \(options.kvType)\(options.smallKVType.map { " \($0)" } ?? "")")
    for window in windows { hash.add(window) }
    journal = try CalibrationJournal(path: journalPath, inputs: hash.text)
  }

  /// Windows from the texts in turn, each text's in an order that the seed decides.
  package static func windows(of texts: [[Int32]], options: CalibrationOptions) throws(CalibrationError) -> [[Int32]] {
    let context = options.context
    let wanted = options.tokens / context
    let generator = SeededGenerator(seed: options.seed)
    var lists = texts.enumerated().map { number, tokens in
      var random = generator.split(number)
      return (0..<tokens.count / context).shuffled(using: &random).map { index in
        Array(tokens[(index * context)..<((index + 1) * context)])
      }[...]
    }
    var windows: [[Int32]] = []
    while windows.count < wanted, lists.contains(where: { !$0.isEmpty }) {
      for index in lists.indices where windows.count < wanted {
        if let window = lists[index].popFirst() { windows.append(window) }
      }
    }
    guard windows.count == wanted else {
      throw CalibrationError(
        description: "text: expected at least \(wanted * context) tokens in whole windows of \(context), found "
          + "\(windows.count * context)")
    }
    return windows
  }

  /// Units of the model, of which ratios are shares.
  package var allUnits: Int {
    let configuration = pair.large.configuration
    return configuration.layerCount * (options.granularity == .layer ? 1 : configuration.attention.kvHeads)
  }

  /// The units that a ratio asks for.
  package func count(of ratio: Double) throws(CalibrationError) -> Int {
    let count = Int((ratio * Double(allUnits)).rounded())
    guard count <= units.count else {
      throw CalibrationError(
        description:
          "ratio: expected at most \(Double(units.count) / Double(allUnits)), because layer 0 has none below it "
          + "to borrow from, found \(ratio)")
    }
    return count
  }

  /// Windows of text that choose lengths (an eighth) or units (a quarter: few windows say little about which), the first
  /// ones, but at least one of each text where enough are left to fit.
  package var choosingWindows: [Int] {
    let share = options.choice == .windows ? 8 : 4
    return Array(0..<min(max(windows.count / share, textCount), windows.count - keptBackWindows.count))
  }
  /// Windows that measure whole plans: an eighth, the last ones.
  package var keptBackWindows: [Int] { Array(windows.count - max(1, windows.count / 8)..<windows.count) }

  /// Makes a plan.
  ///
  /// - Parameter progress: called as work is done; what it throws ends the calibration, which can be resumed.
  /// - Throws: `CalibrationError` where a budget cannot be met or the journal not be written; what the models throw.
  public func run(progress: @escaping (CalibrationProgress) throws -> Void = { _ in }) throws -> CalibrationResult {
    let meter = WorkMeter(total: expectedWork, report: progress)
    let fits = try pair.small.map { try self.fits($0, meter) } ?? []
    return try PlanChoice(calibration: self, fits: fits, meter: meter).choose()
  }

  // MARK: Mixtures

  /// The mixtures of all units, from the journal where it has them.
  private func fits(_ small: DecoderModel<B>, _ meter: WorkMeter) throws -> [[MixtureFit]] {
    if let fits = journal.fits {
      meter.skip(fitWork)
      return fits
    }
    let large = pair.large
    var sums = CandidateSums<B>(
      large: large.configuration, small: small.configuration, near: options.near, backend: large.backend)
    let fitting = windows.count - keptBackWindows.count
    var done = 0
    if let kept = journal.sums, kept.windows <= fitting, sums.restore(kept.data) { done = kept.windows }
    meter.skip(fitWork * Double(done) / Double(fitting))
    for index in done..<fitting {
      try WindowRun(windows[index], pair: pair).add(rows: fittedRows(window: index, of: fitting), to: &sums)
      if index + 1 < fitting { try journal.keep(sums: sums.stored, windows: index + 1) }
      try meter.add(fitWork / Double(fitting), "reading text: window \(index + 1) of \(fitting)")
    }
    let groupSize = large.configuration.attention.groupSize
    let kvHeads = large.configuration.attention.kvHeads
    let gains = try (0..<large.configuration.layerCount).map { try large.outputGains(layer: $0) }
    let size = options.mixture
    let sum: MixtureProblem.Sum = options.near == nil ? .one : .atMostOne
    let found = concurrentMap(large.configuration.layerCount * kvHeads) { [all = sums.units] index in
      let (layer, group) = index.quotientAndRemainder(dividingBy: kvHeads)
      return MixtureFit(
        all[layer][group], gains: Array(gains[layer][(group * groupSize)..<((group + 1) * groupSize)]), size: size,
        sum: sum)
    }
    let fits = (0..<large.configuration.layerCount).map { Array(found[($0 * kvHeads)..<(($0 + 1) * kvHeads)]) }
    try journal.note(fits)
    return fits
  }

  /// One row of each of equal parts of the positions that can differ.
  package func fittedRows(window: Int, of count: Int) -> [Int] {
    let first = options.near.map { $0.positions + $0.sinks } ?? 0
    let length = options.context - first
    let wanted = min(length, max(Self.fittedRows.each, Self.fittedRows.all / count))
    var random = SeededGenerator(seed: options.seed).split(1_000_000 + window)
    return (0..<wanted).map { part in
      first + Int.random(in: part * length / wanted..<(part + 1) * length / wanted, using: &random)
    }
  }

  /// Rows whose predictions are compared.
  package var scoredRows: [Int] {
    let length = options.context - 1 - firstScoredRow
    let count = min(length, Self.scoredRows)
    return (0..<count).map { firstScoredRow + $0 * length / count }
  }

  // MARK: Plans

  /// Units that are mapped.
  package struct Selection: Equatable {
    package var units: [Int]
    /// Positions of the near window of each; those of the options where `nil`.
    package var lengths: [Int]?

    package init(_ units: [Int], lengths: [Int]? = nil) {
      self.units = units
      self.lengths = lengths
    }
  }

  /// The plan in which some units are mapped.
  ///
  /// - Parameter fits: the mixtures of all units.
  package func plan(_ mapped: Selection, fits: [[MixtureFit]]) -> AttentionPlan {
    var plan = AttentionPlan.own(
      layers: pair.large.configuration.layerCount, kvHeads: pair.large.configuration.attention.kvHeads)
    // Lower layers first: those above borrow from what keeps its keys. Units are in the order of layers.
    for (place, unit) in mapped.units.enumerated().sorted(by: { $0.element < $1.element }) {
      var near = options.near
      if let lengths = mapped.lengths { near?.positions = lengths[place] }
      let layer = units[unit].layer
      for group in units[unit].groups {
        plan.units[layer][group] = .mapped(near: near, far: far(layer: layer, group: group, plan, fits: fits))
      }
    }
    return plan
  }

  /// What a unit borrows, where the units of all lower layers are those of `plan`.
  private func far(layer: Int, group: Int, _ plan: AttentionPlan, fits: [[MixtureFit]]) -> AttentionPlan.FarSource {
    switch options.far {
    case .nothing: return .nothing
    case .layer:
      guard let lower = (0..<layer).last(where: { plan.units[$0][group] == .own }) else {
        preconditionFailure("layer 0 is never mapped")
      }
      return .layer(lower)
    case .small:
      let fit = fits[layer][group]
      guard let heads = pair.small?.configuration.attention.queryHeads, !fit.dictionary.isEmpty else {
        // No small head is of use.
        return .nothing
      }
      return .small(
        HeadMixture(
          heads: fit.dictionary.map { HeadIndex(layer: $0 / heads, head: $0 % heads) }, weights: fit.weights))
    }
  }

  // MARK: Work

  /// Work in passes of the large model over a window.
  private var fitWork: Double { pair.small == nil ? 0 : 2.5 * Double(windows.count - keptBackWindows.count) }

  private var expectedWork: Double {
    // Windows are chosen after one round, and of all units there is nothing to choose.
    let wanted = options.choice == .windows ? 1 : expectedUnits < units.count ? expectedUnits : 0
    let rounds = UnitQueue.rounds(units: units.count, wanted: wanted)
    let choiceWork = rounds.reduce(0) { $0 + roundWork(candidates: $1) }
    return fitWork + choiceWork + Double(keptBackWindows.count) * 2.5
  }

  /// A round measures each unit that is left from its layer on: on average half a pass.
  package func roundWork(candidates: Int) -> Double {
    Double(choosingWindows.count) * (2.2 + 0.55 * Double(candidates))
  }

  private var expectedUnits: Int {
    if case .ratio(let ratio) = options.budget { Int((ratio * Double(allUnits)).rounded()) } else { units.count / 2 }
  }
}

/// Counts work and says how far it is.
package final class WorkMeter {
  private let total: Double
  private var done = 0.0
  private let report: (CalibrationProgress) throws -> Void

  package init(total: Double, report: @escaping (CalibrationProgress) throws -> Void) {
    self.total = total
    self.report = report
  }

  /// Counts work that was done.
  package func add(_ work: Double, _ step: String) throws {
    done += work
    try report(CalibrationProgress(step: step, share: min(1, done / total)))
  }

  /// Counts work that needs not be done.
  package func skip(_ work: Double) { done += work }
}
