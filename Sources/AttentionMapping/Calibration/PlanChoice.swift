// Choosing by measurement: units in rounds, each of which measures units beside those that are chosen already and then
// takes the best few (`UnitQueue`); lengths of near windows by what each unit costs alone (`WindowSpread`).

import Foundation
import KindredAttention
import KindredCompute
import KindredTransformer

/// The part of a calibration that chooses lengths or units, given the units' mixtures.
package struct PlanChoice<B: Backend> {
  package typealias Selection = Calibration<B>.Selection

  package let calibration: Calibration<B>
  package let fits: [[MixtureFit]]
  package let meter: WorkMeter

  private var journal: CalibrationJournal { calibration.journal }
  private var unitCount: Int { calibration.units.count }

  package func choose() throws -> CalibrationResult {
    switch calibration.options.choice {
    case .windows: try chooseWindows()
    case .units: try chooseUnits()
    }
  }

  // MARK: Lengths of windows

  /// The fewest positions of a window, sinks aside, that is shortened in favour of others.
  private static var shortestWindow: Int { 16 }
  /// The steps between nothing and all in which a limit of the divergence is approached.
  private static var steps: Int { 32 }

  private func chooseWindows() throws -> CalibrationResult {
    guard let near = calibration.options.near else { preconditionFailure("options have a near window") }
    let (context, sinks, least) = (calibration.options.context, near.sinks, near.positions + near.sinks)
    let spread = WindowSpread(
      measured: try divergencesAlone(), context: context, shortest: min(near.positions, Self.shortestWindow) + sinks)
    func selection(_ kept: Double) -> Selection {
      let kept = spread.kept(mean: kept)
      let units = kept.indices.filter { kept[$0] != nil }
      return Selection(units, lengths: units.map { (kept[$0] ?? context) - sinks })
    }
    switch calibration.options.budget {
    case .ratio(let ratio):
      return try result(selection(max(Double(least), (1 - ratio) * Double(context))))
    case .bytes(let limit):
      let choices = least...context
      func bytes(_ kept: Int) -> Int { self.bytes(selection(Double(kept))) }
      guard let most = choices.last(where: { bytes($0) <= limit }) else {
        throw unreachable(limit, least: choices.map(bytes).min() ?? 0)
      }
      return try result(selection(Double(most)))
    case .divergence(let limit):
      func kept(_ step: Int) -> Selection {
        selection(Double(least) + Double((context - least) * step) / Double(Self.steps))
      }
      // In the last step nothing is mapped.
      var (low, high) = (0, Self.steps)
      while low < high {
        let middle = (low + high) / 2
        if try divergence(kept(middle)) <= limit { high = middle } else { low = middle + 1 }
      }
      return try result(kept(high))
    }
  }

  private func unreachable(_ limit: Int, least: Int) -> CalibrationError {
    CalibrationError(
      description: "kv-budget: expected at least \(least) bytes, which mapping can reach for "
        + "\(calibration.options.context) tokens in both models, found \(limit)")
  }

  // MARK: Units

  private func chooseUnits() throws -> CalibrationResult {
    switch calibration.options.budget {
    case .ratio(let ratio):
      let count = try calibration.count(of: ratio)
      // Of all units there is nothing to choose.
      return try count == unitCount ? result(Selection(Array(0..<count))) : result(order(count))
    case .bytes(let limit):
      let order = try order(unitCount)
      func bytes(_ count: Int) -> Int { self.bytes(Selection(order.prefix(count).map(\.unit))) }
      guard let count = (0...unitCount).first(where: { bytes($0) <= limit }) else {
        throw unreachable(limit, least: (0...unitCount).map(bytes).min() ?? 0)
      }
      return try result(Array(order.prefix(count)))
    case .divergence(let limit):
      return try largest(under: limit)
    }
  }

  /// A unit, and the KL expected with it and all before it where that was found.
  package typealias Step = (unit: Int, divergence: Double)

  /// The first `count` units in the order in which they are mapped.
  private func order(_ count: Int) throws -> [Step] {
    var queue = UnitQueue(units: unitCount)
    while queue.taken.count < count { try advance(&queue, by: count - queue.taken.count) }
    return queue.taken
  }

  /// One round: measures who comes next, and takes the best.
  private func advance(_ queue: inout UnitQueue, by most: Int) throws {
    queue.take(try measurements(beside: queue.taken.map(\.unit), candidates: queue.contenders), most: most)
  }

  /// The longest order whose divergence on windows kept back stays under `limit`.
  private func largest(under limit: Double) throws -> CalibrationResult {
    var queue = UnitQueue(units: unitCount)
    var low = 0
    while !queue.waiting.isEmpty {
      try advance(&queue, by: unitCount)
      guard try divergence(Selection(queue.taken.map(\.unit))) <= limit else { break }
      low = queue.taken.count
    }
    let steps: [Step] = queue.taken
    var high = steps.count + (low == steps.count ? 1 : 0)
    while high - low > 1 {
      let middle = (low + high) / 2
      if try divergence(Selection(steps.prefix(middle).map(\.unit))) <= limit { low = middle } else { high = middle }
    }
    return try result(Array(steps.prefix(low)))
  }

  private func result(_ steps: [Step]) throws -> CalibrationResult {
    try result(Selection(steps.map(\.unit)), expected: steps.last?.divergence ?? 0)
  }

  private func result(_ mapped: Selection, expected: Double? = nil) throws -> CalibrationResult {
    let measured = try keptBack(mapped)
    let unmapped = try keptBack(Selection([]))
    let context = Double(calibration.options.context)
    let plan = calibration.plan(mapped, fits: fits)
    let all = plan.units.joined()
    return CalibrationResult(
      plan: plan, droppedKeys: 1 - Double(all.reduce(0) { $0 + keptKeys($1) }) / (context * Double(all.count)),
      mappedUnits: mapped.units.count, unitCount: calibration.allUnits, divergence: measured.divergence,
      expectedDivergence: expected, perplexityFactor: exp(measured.nll - unmapped.nll), kvBytes: bytes(mapped),
      unmappedKVBytes: bytes(Selection([])))
  }

  // MARK: Measuring

  /// What mapping each unit alone causes on the windows that choose.
  private func divergencesAlone() throws -> [Double] {
    try measurements(beside: [], candidates: Array(0..<unitCount)).divergences
  }

  private func divergence(_ mapped: Selection) throws -> Double { try keptBack(mapped).divergence }

  /// Divergence and log-likelihood on windows kept back, on average.
  private func keptBack(_ mapped: Selection) throws -> (divergence: Double, nll: Double) {
    let windows = calibration.keptBackWindows
    let summaries = try windows.map { window in
      try WindowMeasurement(self, window: window).summary(mapped)
    }
    return (
      summaries.reduce(0) { $0 + $1.divergence } / Double(windows.count),
      summaries.reduce(0) { $0 + $1.nll } / Double(windows.count)
    )
  }

  /// Each of `candidates` beside `base`, on average over the windows that choose.
  private func measurements(beside base: [Int], candidates: [Int]) throws -> UnitMeasurements {
    let windows = calibration.choosingWindows
    var total = UnitMeasurements(
      base: base.sorted(), baseDivergence: 0, candidates: candidates,
      divergences: Array(repeating: 0, count: candidates.count),
      pairs: Array(repeating: Array(repeating: 0, count: candidates.count), count: candidates.count))
    let share = 1 / Double(windows.count)
    for window in windows {
      let measurement = WindowMeasurement(self, window: window)
      let work = calibration.roundWork(candidates: candidates.count) / Double(windows.count * candidates.count)
      let summaries = try measurement.summaries(beside: base, candidates: candidates) { number, isNew in
        guard isNew else { return meter.skip(work) }
        try meter.add(
          work, "measuring units beside \(base.count) of \(unitCount): \(number) of \(candidates.count)")
      }
      let unmapped = try measurement.summary(Selection([]))
      let before = try measurement.summary(Selection(base))
      total.baseDivergence += share * before.divergence
      let changes = summaries.map { Self.change($0, from: before, unmapped: unmapped) }
      let rows = Double(calibration.scoredRows.count)
      for index in candidates.indices {
        total.divergences[index] += share * summaries[index].divergence
        for other in candidates.indices {
          total.pairs[index][other] += share * product(changes[index], changes[other]) / rows
        }
      }
    }
    return total
  }

  /// The change of log-probabilities, each times the root of half the unmapped model's probability: products of two are
  /// ½ E_p r_u r_v, summed over rows.
  private static func change(
    _ summary: PredictionSummary, from before: PredictionSummary, unmapped: PredictionSummary
  ) -> [Float] {
    unmapped.logProbabilities.indices.map { index in
      (summary.logProbabilities[index] - before.logProbabilities[index])
        * exp(0.5 * unmapped.logProbabilities[index]) * Float(0.5).squareRoot()
    }
  }

  private func product(_ a: [Float], _ b: [Float]) -> Double {
    zip(a, b).reduce(0) { $0 + Double($1.0 * $1.1) }
  }

  // MARK: Bytes

  /// Positions of a sequence as long as the context whose keys a unit keeps.
  private func keptKeys(_ attention: AttentionPlan.Unit) -> Int {
    let context = calibration.options.context
    return attention == .own ? context : attention.near.map { min(context, $0.positions + $0.sinks) } ?? 0
  }

  /// Bytes of both models' caches for a sequence as long as the context.
  private func bytes(_ mapped: Selection) -> Int {
    let options = calibration.options
    let plan = calibration.plan(mapped, fits: fits)
    let large = calibration.pair.large.configuration
    func bytes(_ shape: AttentionShape, type: KVType) -> Int {
      KVPageLayout.byteCount(headDimension: shape.headDimension, type: type, positions: options.context)
    }
    let unit = bytes(large.attention, type: options.kvType)
    let own = plan.units.joined().reduce(0) { total, attention in
      let keys = unit / options.context * keptKeys(attention)
      // Where far positions count nothing, their values are not stored.
      if case .mapped(_, .nothing) = attention { return total + 2 * keys }
      return total + keys + unit
    }
    let lender = calibration.pair.small?.configuration.attention
    let lentParts = plan.lenderDepth * 2 * (lender?.kvHeads ?? 0)
    return own + (lender.map { lentParts * bytes($0, type: calibration.pair.smallKVType) } ?? 0)
  }
}

/// Measurements on one window; what the journal has is not measured again.
private final class WindowMeasurement<B: Backend> {
  private let choice: PlanChoice<B>
  private let window: Int
  private var run: WindowRun<B>?
  private var reference: ReferencePredictions<B>?

  init(_ choice: PlanChoice<B>, window: Int) {
    self.choice = choice
    self.window = window
  }

  private var calibration: Calibration<B> { choice.calibration }

  private func key(_ mapped: Calibration<B>.Selection) -> CalibrationJournal.Measurement {
    let order = mapped.units.indices.sorted { mapped.units[$0] < mapped.units[$1] }
    return CalibrationJournal.Measurement(
      window: window, units: order.map { mapped.units[$0] },
      lengths: mapped.lengths.map { lengths in order.map { lengths[$0] } })
  }

  /// The models' state for the window, and the unmapped model's predictions.
  private func prepared() throws -> (run: WindowRun<B>, reference: ReferencePredictions<B>) {
    if let run, let reference { return (run, reference) }
    let run = try WindowRun(calibration.windows[window], pair: calibration.pair)
    let unmapped = Calibration<B>.Selection([])
    let state = try run.run(calibration.plan(unmapped, fits: choice.fits))
    let reference = ReferencePredictions(
      calibration.pair.large, state: state, tokens: run.tokens, rows: calibration.scoredRows)
    if calibration.journal[key(unmapped)] == nil {
      try calibration.journal.note(reference.summary, of: key(unmapped))
    }
    self.run = run
    self.reference = reference
    return (run, reference)
  }

  /// With some units mapped.
  func summary(_ mapped: Calibration<B>.Selection) throws -> PredictionSummary {
    let key = key(mapped)
    if let found = calibration.journal[key] { return found }
    let (run, reference) = try prepared()
    if mapped.units.isEmpty { return reference.summary }
    let plan = calibration.plan(mapped, fits: choice.fits)
    let summary = reference.summarize(try run.run(plan))
    try calibration.journal.note(summary, of: key)
    try choice.meter.add(1, "measuring the plan")
    return summary
  }

  /// With each of `candidates` mapped beside `base`; `progress` is called with how many are done and whether the last
  /// one was measured now. Layers below a candidate's do not differ from the base's and are not
  /// run again.
  func summaries(
    beside base: [Int], candidates: [Int], progress: (Int, _ isNew: Bool) throws -> Void
  ) throws -> [PredictionSummary] {
    var hidden: [[Float]]?
    return try candidates.enumerated().map { number, candidate in
      let mapped = Calibration<B>.Selection(base + [candidate])
      if let found = calibration.journal[key(mapped)] {
        try progress(number + 1, false)
        return found
      }
      let (run, reference) = try prepared()
      let large = calibration.pair.large
      if hidden == nil {
        var inputs: [[Float]] = []
        let base = Calibration<B>.Selection(base)
        let state = try run.run(calibration.plan(base, fits: choice.fits)) { state in
          inputs.append(large.backend.read(state.hidden, rows: 0..<run.tokens.count))
        }
        if calibration.journal[key(base)] == nil {
          try calibration.journal.note(reference.summarize(state), of: key(base))
        }
        hidden = inputs
      }
      let plan = calibration.plan(mapped, fits: choice.fits)
      let layer = plan.lowestSource(from: calibration.units[candidate].layer)
      let state = try run.run(plan, from: layer, hidden: hidden?[layer] ?? [])
      let summary = reference.summarize(state)
      try calibration.journal.note(summary, of: key(mapped))
      try progress(number + 1, true)
      return summary
    }
  }
}

extension AttentionPlan {
  /// The highest layer, up to `layer`, from which on no layer uses the rows of one below it.
  package func lowestSource(from layer: Int) -> Int {
    var lowest = layer
    for index in units.indices.reversed() where index >= lowest {
      for case .mapped(_, .layer(let source)) in units[index] { lowest = min(lowest, source) }
    }
    return lowest
  }
}
