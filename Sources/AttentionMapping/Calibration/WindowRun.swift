// One window of calibration text in both models: the small model once, the large one as often as there is something to
// measure, from the first layer on that differs.

import Foundation
import KindredAttention
import KindredCompute
import KindredKVStore
import KindredTransformer

/// The models of a calibration, and the types in which they store keys and values.
package struct CalibrationPair<B: Backend> {
  package let large: DecoderModel<B>
  /// `nil` where nothing is borrowed from a small model.
  package let small: DecoderModel<B>?
  package let kvType: KVType
  package let smallKVType: KVType

  package init(large: DecoderModel<B>, small: DecoderModel<B>?, kvType: KVType, smallKVType: KVType? = nil) {
    self.large = large
    self.small = small
    self.kvType = kvType
    self.smallKVType = smallKVType ?? kvType
  }
}

/// A window of text, read by the small model.
package struct WindowRun<B: Backend> {
  package let tokens: [Int32]
  /// The small model's attention, all layers recorded; `nil` without one.
  package let lent: LentAttention<B>?

  private let pair: CalibrationPair<B>
  private let batch: Batch
  /// Holds the keys to which `lent` refers.
  private let smallState: RunState<B>?

  package init(_ tokens: [Int32], pair: CalibrationPair<B>) throws {
    self.tokens = tokens
    self.pair = pair
    var batch = Batch()
    batch.append(tokens, to: 0, from: 0)
    self.batch = batch
    guard let small = pair.small else {
      (smallState, lent) = (nil, nil)
      return
    }
    let state = try Self.state(small, rows: tokens.count, kvType: pair.smallKVType)
    let record = try Self.record(small, state, rows: tokens.count)
    try small.forward(batch, state: state, lending: record, depth: small.configuration.layerCount)
    (smallState, lent) = (state, record)
  }

  private static func state(_ model: DecoderModel<B>, rows: Int, kvType: KVType) throws(ComputeError) -> RunState<B> {
    let state = try RunState(model.configuration, backend: model.backend, rowCapacity: rows, kvType: kvType)
    _ = state.store.addSequence()
    return state
  }

  /// A record of all layers of a model.
  private static func record(
    _ model: DecoderModel<B>, _ state: RunState<B>, rows: Int
  ) throws(ComputeError) -> LentAttention<B> {
    try LentAttention(
      backend: model.backend, store: state.store, layers: 0..<model.configuration.layerCount, rowCapacity: rows)
  }

  /// Adds sampled rows of the unmapped large model to `sums`.
  ///
  /// - Precondition: there is a small model.
  package func add(rows: [Int], to sums: inout CandidateSums<B>) throws {
    guard let lent else { preconditionFailure("sums need a small model") }
    let large = pair.large
    let state = try Self.state(large, rows: tokens.count, kvType: pair.kvType)
    let own = try Self.record(large, state, rows: tokens.count)
    try large.begin(batch, state: state)
    var values: [[Float]] = []
    for layer in 0..<large.configuration.layerCount {
      try large.run(
        layer..<layer + 1, of: batch, state: state, lending: own,
        end: layer == large.configuration.layerCount - 1 ? .attention : .output)
      values.append(large.backend.read(state.value, rows: 0..<tokens.count))
    }
    try sums.add(rows: rows, own: own, values: values, lent: lent)
  }

  /// Runs the large model by a plan.
  ///
  /// - Parameters:
  ///   - plan: how it attends.
  ///   - layer: the layer to begin with, not above one whose rows others borrow.
  ///   - hidden: what that layer reads, `[tokens, E]`; for layer 0 the tokens' embeddings by default.
  ///   - each: called before each layer.
  /// - Returns: the state with the model's output.
  package func run(
    _ plan: AttentionPlan, from layer: Int = 0, hidden: [Float]? = nil, each: (RunState<B>) -> Void = { _ in }
  ) throws -> RunState<B> {
    let large = pair.large
    let state = try RunState(
      large.configuration, backend: large.backend, rowCapacity: tokens.count, kvType: pair.kvType)
    state.store.adopt(plan)
    _ = state.store.addSequence()
    try large.begin(batch, state: state)
    if let hidden { large.backend.write(hidden, to: state.hidden) }
    let borrowing =
      try plan.mappedUnits.isEmpty ? nil : Borrowing(plan, large: state.store, lent: lent, rowCapacity: tokens.count)
    for index in layer..<large.configuration.layerCount {
      each(state)
      try large.run(index..<index + 1, of: batch, state: state, borrowing: borrowing)
    }
    return state
  }
}

/// The unmapped model's predictions at some rows of a window, against which others are measured.
package struct ReferencePredictions<B: Backend> {
  private let model: DecoderModel<B>
  /// The scored rows, and the tokens that follow them.
  private let rows: [Int]
  private let targets: [Int32]
  private var references: [Reference] = []
  /// Of the unmapped model itself.
  private(set) var summary = PredictionSummary(divergence: 0, nll: 0, logProbabilities: [])

  private struct Reference: Sendable {
    /// `[vocabulary]`.
    let probabilities: [Float]
    let logProbabilities: [Float]
    /// The most likely tokens.
    let top: [Int]
  }

  /// Tokens that are looked at one by one; the others count together.
  private static var topCount: Int { 32 }

  /// - Parameters:
  ///   - model: the model.
  ///   - state: with its output for a window.
  ///   - tokens: of the window.
  ///   - rows: the rows to score, all before the window's last.
  package init(_ model: DecoderModel<B>, state: RunState<B>, tokens: [Int32], rows: [Int]) {
    self.model = model
    self.rows = rows
    targets = rows.map { tokens[$0 + 1] }
    references = Self.eachRow(model, state: state, rows: rows) { _, logs in
      Reference(probabilities: logs.map { exp($0) }, logProbabilities: logs, top: logs.largest(Self.topCount))
    }
    summary = summarize(state)
  }

  /// Compares another run of the window.
  package func summarize(_ state: RunState<B>) -> PredictionSummary {
    let parts = Self.eachRow(model, state: state, rows: rows) { [references, targets] index, logs in
      let reference = references[index]
      var divergence = 0.0
      for token in logs.indices {
        divergence += Double(reference.probabilities[token] * (reference.logProbabilities[token] - logs[token]))
      }
      let top = reference.top.map { logs[$0] }
      let rest = 1 - top.reduce(0.0) { $0 + exp(Double($1)) }
      return (divergence, Double(logs[Int(targets[index])]), top + [Float(log(max(rest, 1e-9)))])
    }
    let count = Double(max(1, rows.count))
    return PredictionSummary(
      divergence: parts.reduce(0) { $0 + $1.0 } / count, nll: -parts.reduce(0) { $0 + $1.1 } / count,
      logProbabilities: parts.flatMap(\.2))
  }

  /// What `body` makes of the log-probabilities of each row, `[vocabulary]`.
  private static func eachRow<Result: Sendable>(
    _ model: DecoderModel<B>, state: RunState<B>, rows: [Int], _ body: @Sendable (Int, [Float]) -> Result
  ) -> [Result] {
    let vocabulary = model.configuration.vocabularySize
    return stride(from: 0, to: rows.count, by: RunState<B>.logitRows).flatMap { start in
      let part = rows[start..<min(start + RunState<B>.logitRows, rows.count)]
      let logits = model.logits(rows: part, state: state)
      return concurrentMap(part.count) { index in
        let row = logits[(index * vocabulary)..<((index + 1) * vocabulary)]
        let maximum = row.max() ?? 0
        let shift = maximum + Float(log(row.reduce(0.0) { $0 + Double(exp($1 - maximum)) }))
        return body(start + index, row.map { $0 - shift })
      }
    }
  }
}

extension [Float] {
  /// The indices of the `count` largest elements, largest first; of equal ones the first.
  package func largest(_ count: Int) -> [Int] {
    var best: [Int] = []
    for index in indices where best.count < count || self[index] > self[best[best.count - 1]] {
      let place = best.firstIndex { self[$0] < self[index] } ?? best.count
      best.insert(index, at: place)
      if best.count > count { best.removeLast() }
    }
    return best
  }
}
