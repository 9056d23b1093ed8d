// Choosing units by measurement: in rounds, each of which measures units beside those that are chosen already and then
// takes the best few (`UnitQueue`).

import Foundation
import KindredAttention
import KindredCompute
import KindredTransformer

/// The part of a calibration that chooses units, given their mixtures.
package struct UnitChoice<B: Backend> {
  package let calibration: Calibration<B>
  package let fits: [[MixtureFit]]
  package let meter: WorkMeter

  private var journal: CalibrationJournal { calibration.journal }
  private var unitCount: Int { calibration.units.count }

  package func choose() throws -> CalibrationResult {
    switch calibration.options.budget {
    case .ratio(let ratio):
      let count = try calibration.count(of: ratio)
      // Of all units there is nothing to choose.
      return try result(count == unitCount ? (0..<count).map { ($0, nil) } : order(count))
    case .bytes(let limit):
      let order = try order(unitCount)
      guard let count = try (0...unitCount).first(where: { try bytes(order.prefix($0).map(\.unit)) <= limit }) else {
        let least = try (0...unitCount).map { try bytes(order.prefix($0).map(\.unit)) }.min() ?? 0
        throw CalibrationError(
          description: "kv-budget: expected at least \(least) bytes, which mapping can reach for "
            + "\(calibration.options.context) tokens in both models, found \(limit)")
      }
      return try result(Array(order.prefix(count)))
    case .divergence(let limit):
      return try largest(under: limit)
    }
  }

  /// A unit, and the KL expected with it and all before it where that was found.
  package typealias Step = (unit: Int, divergence: Double?)

  /// The first `count` units in the order in which they are mapped.
  private func order(_ count: Int) throws -> [Step] {
    var queue = UnitQueue(units: unitCount)
    while queue.taken.count < count { try advance(&queue, by: count - queue.taken.count) }
    return queue.steps
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
      guard try divergence(queue.taken.map(\.unit)) <= limit else { break }
      low = queue.taken.count
    }
    let steps = queue.steps
    var high = steps.count + (low == steps.count ? 1 : 0)
    while high - low > 1 {
      let middle = (low + high) / 2
      if try divergence(steps.prefix(middle).map(\.unit)) <= limit { low = middle } else { high = middle }
    }
    return try result(Array(steps.prefix(low)))
  }

  private func divergence(_ mapped: [Int]) throws -> Double { try keptBack(mapped, lengths(mapped)).divergence }

  private func result(_ steps: [Step]) throws -> CalibrationResult {
    let mapped = steps.map(\.unit)
    let lengths = try lengths(mapped)
    let measured = try keptBack(mapped, lengths)
    let unmapped = try keptBack([], nil)
    return CalibrationResult(
      plan: calibration.plan(mapped, fits: fits, lengths: lengths), mappedUnits: mapped.count,
      unitCount: calibration.allUnits, divergence: measured.divergence,
      expectedDivergence: steps.isEmpty ? 0 : steps[steps.count - 1].divergence,
      perplexityFactor: exp(measured.nll - unmapped.nll), kvBytes: bytes(mapped, lengths),
      unmappedKVBytes: bytes([], nil))
  }

  // MARK: Measuring

  /// The lengths of the near windows of some units, where they are not the same.
  private func lengths(_ mapped: [Int]) throws -> [Int]? {
    guard calibration.spreadsWindows, let near = calibration.options.near, !mapped.isEmpty else { return nil }
    let costs = try mapped.map { try divergenceAlone($0) }
    return WindowSpread.lengths(costs: costs, mean: near.positions)
  }

  /// What mapping one unit causes on the windows that choose.
  private func divergenceAlone(_ unit: Int) throws -> Double {
    let windows = calibration.choosingWindows
    func found(_ window: Int) -> Double? {
      journal[CalibrationJournal.Measurement(window: window, units: [unit])]?.divergence
    }
    // A choice has begun with these measurements; where all units are mapped, none was needed.
    if windows.contains(where: { found($0) == nil }) {
      _ = try measurements(beside: [], candidates: Array(0..<unitCount))
    }
    return windows.reduce(0) { $0 + (found($1) ?? 0) } / Double(windows.count)
  }

  /// Divergence and log-likelihood on windows kept back, on average.
  private func keptBack(_ mapped: [Int], _ lengths: [Int]?) throws -> (divergence: Double, nll: Double) {
    let windows = calibration.keptBackWindows
    let summaries = try windows.map { window in
      try WindowMeasurement(self, window: window).summary(mapped, lengths)
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
      let unmapped = try measurement.summary([])
      let before = try measurement.summary(base)
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

  /// Bytes of both models' caches for a sequence as long as the context.
  private func bytes(_ mapped: [Int]) throws -> Int { try bytes(mapped, lengths(mapped)) }

  private func bytes(_ mapped: [Int], _ lengths: [Int]?) -> Int {
    let options = calibration.options
    let plan = calibration.plan(mapped, fits: fits, lengths: lengths)
    let large = calibration.pair.large.configuration
    func bytes(_ shape: AttentionShape, type: KVType) -> Int {
      KVPageLayout.byteCount(headDimension: shape.headDimension, type: type, positions: options.context)
    }
    let unit = bytes(large.attention, type: options.kvType)
    let own = plan.units.joined().reduce(0) { total, attention in
      let near = attention.near.map { min(options.context, $0.positions + $0.sinks) } ?? 0
      let keys = attention == .own ? unit : unit / options.context * near
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
  private let choice: UnitChoice<B>
  private let window: Int
  private var run: WindowRun<B>?
  private var reference: ReferencePredictions<B>?

  init(_ choice: UnitChoice<B>, window: Int) {
    self.choice = choice
    self.window = window
  }

  private var calibration: Calibration<B> { choice.calibration }

  private func key(_ mapped: [Int], _ lengths: [Int]? = nil) -> CalibrationJournal.Measurement {
    let order = mapped.indices.sorted { mapped[$0] < mapped[$1] }
    return CalibrationJournal.Measurement(
      window: window, units: order.map { mapped[$0] }, lengths: lengths.map { lengths in order.map { lengths[$0] } })
  }

  /// The models' state for the window, and the unmapped model's predictions.
  private func prepared() throws -> (run: WindowRun<B>, reference: ReferencePredictions<B>) {
    if let run, let reference { return (run, reference) }
    let run = try WindowRun(calibration.windows[window], pair: calibration.pair)
    let state = try run.run(calibration.plan([], fits: choice.fits))
    let reference = ReferencePredictions(
      calibration.pair.large, state: state, tokens: run.tokens, rows: calibration.scoredRows)
    if calibration.journal[key([])] == nil { try calibration.journal.note(reference.summary, of: key([])) }
    self.run = run
    self.reference = reference
    return (run, reference)
  }

  /// With some units mapped.
  func summary(_ mapped: [Int], _ lengths: [Int]? = nil) throws -> PredictionSummary {
    let key = key(mapped, lengths)
    if let found = calibration.journal[key] { return found }
    let (run, reference) = try prepared()
    if mapped.isEmpty { return reference.summary }
    let plan = calibration.plan(mapped, fits: choice.fits, lengths: lengths)
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
      let mapped = base + [candidate]
      if let found = calibration.journal[key(mapped)] {
        try progress(number + 1, false)
        return found
      }
      let (run, reference) = try prepared()
      let large = calibration.pair.large
      if hidden == nil {
        var inputs: [[Float]] = []
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

extension UnitQueue {
  fileprivate var steps: [(unit: Int, divergence: Double?)] { taken.map { ($0.unit, $0.divergence) } }
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
