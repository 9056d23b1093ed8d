// The decoder pass. Prefill, decode, batched decode and the verification of a draft are this one pass with
// different rows.
//
// Checked against PyPI `transformers` on tiny random models of every family (`Tests/TransformerTests`).

import KindredAttention
import KindredCompute
import KindredKVStore
import KindredModelFiles

/// A model that can be run: blueprint, weights and backend. It holds no state and may be shared.
public struct DecoderModel<B: Backend>: Sendable {
  /// Sizes and kinds of its parts.
  public let configuration: DecoderConfiguration
  /// In the backend's layout.
  public let weights: DecoderWeights<B>
  /// Where it runs.
  public let backend: B
  private let frequencies: [Double]

  public init(configuration: DecoderConfiguration, weights: DecoderWeights<B>, backend: B) {
    self.configuration = configuration
    self.weights = weights
    self.backend = backend
    frequencies = configuration.rotary.frequencies
  }

  /// Runs the rows of a batch through the layers: stores their keys and values and leaves their hidden states in
  /// `state`, from which ``logits(rows:state:)`` computes what is wanted. Of a batch whose output is not wanted
  /// (`Batch.wantsOutput`) the last layer computes only what is stored or recorded.
  ///
  /// A row's result does not depend, bit for bit, on which other rows share its pass. It depends on their number as
  /// `Backend` says, and on whether they are 16 or more sequences that are decoded together, a token each, whose
  /// activations have 8 bits instead of 16.
  ///
  /// - Parameters:
  ///   - batch: at least one row; each sequence goes on at its first position that is not stored, or before.
  ///   - state: with a KV cache that holds the earlier positions of each sequence; extended here.
  ///   - borrowing: for a large model with borrowed attention, the plan and the small model's pass over these rows.
  ///   - lending: where this model's attention is recorded.
  ///   - depth: for a lending model, the layers to run, the last of them only up to its attention: nothing later
  ///     needs its output. By default all layers run, whole.
  /// - Throws: `DecoderError` for a token outside the vocabulary, too many rows or positions, or lack of memory.
  public func forward(
    _ batch: Batch, state: RunState<B>, borrowing: Borrowing<B>? = nil, lending: LentAttention<B>? = nil,
    depth: Int? = nil
  ) throws(DecoderError) {
    try begin(batch, state: state)
    let layers = min(depth ?? configuration.layerCount, configuration.layerCount)
    let isRecorded = depth != nil || lending?.records(layer: layers - 1) ?? false
    let isWhole = depth == nil && (batch.wantsOutput || configuration.isSlice)
    let end: LayerEnd = isWhole ? .output : isRecorded ? .attention : .keysAndValues
    try run(0..<layers, of: batch, state: state, borrowing: borrowing, lending: lending, end: end)
    lending?.finishPass(rows: batch.tokens.count)
  }

  /// Makes room for the rows of a batch and embeds their tokens: what ``forward(_:state:borrowing:lending:depth:)`` does
  /// before its first layer.
  package func begin(_ batch: Batch, state: RunState<B>) throws(DecoderError) {
    try validate(batch, state: state)
    do throws(ComputeError) {
      for run in batch.runs { try state.store.extend(run.sequence, to: run.firstPosition + run.rows.count) }
    } catch {
      throw .compute(error)
    }
    embed(batch.tokens, into: state.hidden)
    state.precision = batch.precision
    state.logitPrecision = batch.logitPrecision
  }

  /// Runs some layers on the hidden states in `state`, where `begin` has made room.
  ///
  /// - Parameter end: how far the last of the layers is run.
  package func run(
    _ layers: Range<Int>, of batch: Batch, state: RunState<B>, borrowing: Borrowing<B>? = nil,
    lending: LentAttention<B>? = nil, end: LayerEnd = .output
  ) throws(DecoderError) {
    let angles = RotaryAngles(
      positions: batch.positions, frequencies: frequencies, interleaved: configuration.rotary.interleaved)
    for layer in layers {
      do throws(ComputeError) {
        try state.store.growWindows(batch.runs, layer: layer)
      } catch {
        throw .compute(error)
      }
      let end = layer == layers.upperBound - 1 ? end : .output
      let segments = state.store.segments(batch.runs, layer: layer)
      let usesKeys = borrowing?.plan.usesKeys(layer: layer) ?? true
      let usesQueries = usesKeys && end != .keysAndValues
      project(
        layer, rows: batch.tokens.count, usesQueries: usesQueries, usesKeys: usesKeys, angles: angles,
        segments: segments, state: state)
      if end != .keysAndValues {
        attend(layer, batch: batch, segments: segments, state: state, borrowing: borrowing, lending: lending)
      }
      state.store.trimWindows(batch.runs, layer: layer)
      guard end == .output else { break }
      projectAttention(layer, rows: batch.tokens.count, state: state)
      feedForward(layer, rows: batch.tokens.count, state: state)
    }
  }

  /// What an error of each query head's output counts in a layer's output: the square of the Frobenius norm of its slice
  /// of W_O, `[H]`.
  package func outputGains(layer: Int) throws(ComputeError) -> [Double] {
    let shape = configuration.attention
    let count = shape.queryHeads * shape.headDimension
    let units = try backend.makeTensor(rows: count, columns: count)
    backend.write((0..<count * count).map { $0 % (count + 1) == 0 ? 1 : 0 }, to: units)
    let input = try backend.makeActivations(rows: count, columns: count)
    let output = try backend.makeTensor(rows: count, columns: configuration.hiddenSize)
    backend.prepare(units, rows: count, into: input)
    backend.multiply(input, rows: count, [weights.layers[layer].attentionOutput(into: output, precision: .int16)])
    return (0..<shape.queryHeads).map { head in
      backend.read(output, rows: head * shape.headDimension..<(head + 1) * shape.headDimension)
        .reduce(0) { $0 + Double($1) * Double($1) }
    }
  }

  /// The logits of rows of the last pass, `[rows, vocabulary]`, row after row.
  public func logits(rows: some Collection<Int>, state: RunState<B>) -> [Float] {
    var result: [Float] = []
    var remaining = Array(rows)[...]
    while !remaining.isEmpty {
      let part = remaining.prefix(RunState<B>.logitRows)
      remaining = remaining.dropFirst(part.count)
      backend.gather(part, of: state.hidden, into: state.selected, at: 0)
      backend.normalize(
        state.selected, rows: part.count, weight: weights.outputNorm, epsilon: configuration.normEpsilon,
        into: state.normalized)
      backend.multiply(
        state.normalized, rows: part.count, [weights.output(into: state.logits, precision: state.logitPrecision)])
      let logits = backend.read(state.logits, rows: 0..<part.count)
      // One part, as of all but large batches, is not copied.
      if result.isEmpty { result = logits } else { result += logits }
    }
    return result
  }

  /// The final hidden state of a row of the last pass, after the last norm, `[E]`.
  public func finalState(row: Int, state: RunState<B>) -> [Float] {
    backend.gather([row], of: state.hidden, into: state.selected, at: 0)
    // A norm over one head as wide as the row.
    backend.normalizeHeads(
      state.selected, rows: 1, weight: weights.outputNorm, epsilon: configuration.normEpsilon)
    return backend.read(state.selected, rows: 0..<1)
  }

  private func validate(_ batch: Batch, state: RunState<B>) throws(DecoderError) {
    guard batch.tokens.count <= state.rowCapacity else {
      throw .tooManyRows(found: batch.tokens.count, limit: state.rowCapacity)
    }
    if let token = batch.tokens.first(where: { $0 < 0 || $0 >= configuration.vocabularySize }) {
      throw .tokenOutOfRange(token: token, vocabularySize: configuration.vocabularySize)
    }
    precondition(!batch.tokens.isEmpty, "a pass needs at least one row")
    for run in batch.runs {
      let needed = run.firstPosition + run.rows.count
      guard needed <= configuration.contextLength else {
        throw .contextExceeded(needed: needed, limit: configuration.contextLength)
      }
      let stored = state.store.length(of: run.sequence)
      guard run.firstPosition <= stored else { throw .positionsMissing(first: run.firstPosition, stored: stored) }
    }
  }

  private func embed(_ tokens: [Int32], into hidden: B.Tensor) {
    let table = weights.embedding
    let columns = configuration.hiddenSize
    let rowBytes = table.byteCount / configuration.vocabularySize
    let values = table.withBytes { bytes in
      tokens.flatMap { token in
        table.type.dequantize(
          UnsafeRawBufferPointer(rebasing: bytes[Int(token) * rowBytes..<(Int(token) + 1) * rowBytes]), count: columns)
      }
    }
    backend.write(values, to: hidden)
  }

  /// Computes the queries, keys and values of a layer and stores the latter two.
  private func project(
    _ index: Int, rows: Int, usesQueries: Bool, usesKeys: Bool, angles: RotaryAngles,
    segments: [AttentionSegment<B.Page>], state: RunState<B>
  ) {
    let layer = weights.layers[index]
    let shape = configuration.attention
    let precision = state.precision
    let type = state.store.type
    let epsilon = configuration.normEpsilon
    backend.normalize(
      state.hidden, rows: rows, weight: layer.attentionNorm, epsilon: epsilon, into: state.normalized)
    var products = [layer.value(into: state.value, precision: precision)]
    if usesQueries { products.append(layer.query(into: state.query, precision: precision)) }
    if usesKeys { products.append(layer.key(into: state.key, precision: precision)) }
    backend.multiply(state.normalized, rows: rows, products)
    backend.store(state.value, as: .values, in: segments, type: type)
    if usesQueries {
      if let weight = layer.queryNorm {
        backend.normalizeHeads(state.query, rows: rows, weight: weight, epsilon: epsilon)
      }
      backend.rotate(state.query, heads: shape.queryHeads, by: angles)
    }
    if usesKeys {
      if let weight = layer.keyNorm {
        backend.normalizeHeads(state.key, rows: rows, weight: weight, epsilon: epsilon)
      }
      backend.rotate(state.key, heads: shape.kvHeads, by: angles)
      backend.store(state.key, as: .keys, in: segments, type: type)
    }
  }

  /// Attention of a layer, own and borrowed, over what ``project`` has stored.
  private func attend(
    _ index: Int, batch: Batch, segments: [AttentionSegment<B.Page>], state: RunState<B>, borrowing: Borrowing<B>?,
    lending: LentAttention<B>?
  ) {
    let shape = configuration.attention
    let type = state.store.type
    // Of the last layer of a lending model some KV heads may store nothing: nobody uses them.
    let ownGroups =
      borrowing?.plan.ownGroups(layer: index)
      ?? (0..<shape.kvHeads).filter { head in segments.allSatisfy { !$0.keys[head].isEmpty } }
    if !ownGroups.isEmpty {
      let lends = lending?.records(layer: index) ?? false
      backend.attend(
        AttentionRequest(
          query: state.query, shape: shape, type: type, groups: ownGroups, output: state.attended,
          logSumExp: lends ? state.logSumExp : nil, kept: lending?.keptHeads(layer: index) ?? []),
        segments: segments)
      lending?.record(layer: index, query: state.query, logSumExp: state.logSumExp, rows: batch.tokens.count)
    }
    if let borrowing, ownGroups.count < shape.kvHeads {
      let usesKeys = borrowing.plan.usesKeys(layer: index)
      backend.attend(
        BorrowRequest(
          loans: borrowing.loans(layer: index, runs: batch.runs),
          groups: (0..<shape.kvHeads).filter { !ownGroups.contains($0) }, shape: shape, type: type,
          output: state.attended, query: usesKeys ? state.query : nil, products: borrowing.products),
        segments: segments)
    }
  }

  private func projectAttention(_ index: Int, rows: Int, state: RunState<B>) {
    backend.prepare(state.attended, rows: rows, into: state.attendedInput)
    let output = weights.layers[index].attentionOutput
    backend.multiply(
      state.attendedInput, rows: rows, [output(into: state.hidden, accumulates: true, precision: state.precision)])
  }

  private func feedForward(_ index: Int, rows: Int, state: RunState<B>) {
    let layer = weights.layers[index]
    backend.normalize(
      state.hidden, rows: rows, weight: layer.feedForwardNorm, epsilon: configuration.normEpsilon,
      into: state.normalized)
    let precision = state.precision
    let down = layer.down(into: state.hidden, accumulates: true, precision: precision)
    backend.gatedProduct(
      state.normalized, rows: rows, gate: layer.gate(into: state.gate, precision: precision),
      up: layer.up(into: state.up, precision: precision), into: state.gatedInput, for: down)
    backend.multiply(state.gatedInput, rows: rows, [down])
  }
}

/// How far a layer is run.
package enum LayerEnd {
  /// To its keys and values, which are stored.
  case keysAndValues
  /// To its attention, which a record may have.
  case attention
  /// To its output.
  case output
}

/// What can go wrong in a pass.
public enum DecoderError: Error, Sendable, Hashable, CustomStringConvertible {
  /// More rows than the state has room for.
  case tooManyRows(found: Int, limit: Int)
  /// A token that the embedding table does not have.
  case tokenOutOfRange(token: Int32, vocabularySize: Int)
  /// A sequence longer than the model's context.
  case contextExceeded(needed: Int, limit: Int)
  /// Rows go on at `first`, of a sequence with `stored` positions.
  case positionsMissing(first: Int, stored: Int)
  /// What the backend says, as for lack of memory.
  case compute(ComputeError)

  public var description: String {
    switch self {
    case .tooManyRows(let found, let limit): "batch: expected at most \(limit) rows, found \(found)"
    case .tokenOutOfRange(let token, let size): "token \(token): expected an id from 0 to \(size - 1)"
    case .contextExceeded(let needed, let limit):
      "context: expected at most \(limit) positions, found a need of \(needed)"
    case .positionsMissing(let first, let stored):
      "batch: expected rows from position \(stored) or before, found position \(first)"
    case .compute(let error): error.description
    }
  }
}
