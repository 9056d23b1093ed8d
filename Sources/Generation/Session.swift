// Sequences being read and continued, by a model alone or with attention borrowed from a small one: the running part
// of IAM (ALGORITHMS §1 of the design).
//
// The small model goes first over each chunk of rows, the large one follows and borrows. The first τ_t tokens run
// unmapped in both and establish the map; the keys of mapped layers are then dropped.

import KindredAttention
import KindredAttentionMapping
import KindredCompute
import KindredKVStore
import KindredTransformer

/// One or several sequences and the state that one or two models need to continue them.
///
/// A session begins with one empty sequence, number 0. With a lender the map is established on the first tokens of
/// sequence 0 and holds for all of them.
///
/// Not `Sendable`: one thread uses it at a time.
public final class Session<B: Backend> {
  /// How a session runs.
  public struct Options: Sendable {
    /// The type of stored keys and values.
    public var kvType = KVType.f16
    /// Rows of one pass in prefill.
    public var chunkRows = 512

    public init() {}
  }

  /// A lending model and how its attention is mapped.
  public struct Lender {
    public var decoder: DecoderModel<B>
    public var recipe: PaperRecipe

    public init(decoder: DecoderModel<B>, recipe: PaperRecipe) {
      self.decoder = decoder
      self.recipe = recipe
    }
  }

  /// The tokens of sequence 0 so far.
  public var tokens: [Int32] { lines[0].tokens }
  /// Where each unit of the large model takes its attention from; ordinary until the map is established.
  public private(set) var plan: AttentionPlan

  private let decoder: DecoderModel<B>
  private let lender: Lender?
  private let options: Options
  private let state: RunState<B>
  private var lines: [Line] = []
  private var small: SmallState?

  /// A sequence: its tokens, and its number in each model's cache.
  private struct Line {
    var tokens: [Int32] = []
    let large: Int
    let small: Int
  }

  /// What the lending model holds.
  private struct SmallState {
    let state: RunState<B>
    var phase: Phase
  }

  /// What is recorded of the two models' attention.
  private enum Phase {
    /// All layers of both models, until there are enough tokens for a map.
    case establishing(large: LentAttention<B>, small: LentAttention<B>)
    /// The layers of the small model that the plan uses.
    case borrowing(LentAttention<B>)
  }

  /// Starts with one empty sequence.
  ///
  /// With a recipe that maps no layer the small model does not run at all.
  ///
  /// - Throws: `ComputeError` where memory is lacking, `LayerSelection.SelectionError` for layers that the large
  ///   model does not have.
  public init(decoder: DecoderModel<B>, lender: Lender? = nil, options: Options = Options()) throws {
    self.decoder = decoder
    self.options = options
    let configuration = decoder.configuration
    let rows = max(1, min(options.chunkRows, configuration.contextLength))
    plan = .own(layers: configuration.layerCount, kvHeads: configuration.attention.kvHeads)
    state = try RunState(configuration, backend: decoder.backend, rowCapacity: rows, kvType: options.kvType)
    self.lender = try lender.flatMap { lender in
      try lender.recipe.layers.layers(of: configuration.layerCount).isEmpty ? nil : lender
    }
    if let lender = self.lender { small = try establishing(lender, rowCapacity: rows) }
    addSequence()
  }

  /// The state of a lending model before the map is established: all layers of both models are recorded.
  private func establishing(_ lender: Lender, rowCapacity: Int) throws(ComputeError) -> SmallState {
    let smallState = try RunState(
      lender.decoder.configuration, backend: lender.decoder.backend, rowCapacity: rowCapacity,
      kvType: options.kvType)
    func record(_ model: DecoderModel<B>, _ store: KVStore<B>) throws(ComputeError) -> LentAttention<B> {
      try LentAttention(
        backend: model.backend, store: store, layers: 0..<model.configuration.layerCount,
        rowCapacity: lender.recipe.establishmentTokens)
    }
    return SmallState(
      state: smallState,
      phase: .establishing(
        large: try record(decoder, state.store), small: try record(lender.decoder, smallState.store)))
  }

  /// Positions that both models can hold.
  public var contextLength: Int {
    min(decoder.configuration.contextLength, lender?.decoder.configuration.contextLength ?? .max)
  }

  /// Adds an empty sequence and returns its number.
  @discardableResult
  public func addSequence() -> Int {
    lines.append(Line(large: state.store.addSequence(), small: small?.state.store.addSequence() ?? 0))
    return lines.count - 1
  }

  /// Reads tokens of a sequence and returns the logits that follow the last one, `[vocabulary]`.
  ///
  /// - Parameters:
  ///   - newTokens: at least one token.
  ///   - line: the sequence.
  ///   - progress: called after each pass with the number of new tokens read; what it throws ends the reading, and
  ///     the session keeps the tokens read so far.
  /// - Throws: `DecoderError`; the session then holds the tokens of the passes that succeeded.
  public func append(
    _ newTokens: [Int32], to line: Int = 0, progress: (Int) throws -> Void = { _ in }
  ) throws -> [Float] {
    precondition(!newTokens.isEmpty, "append needs at least one token")
    var last = 0
    try run(newTokens, line: line) { rows, done in
      last = rows - 1
      try progress(done)
    }
    return decoder.logits(rows: [last], state: state)
  }

  /// Reads tokens of sequence 0 and hands over the logits that follow each of them, in order, in blocks of rows.
  ///
  /// - Parameters:
  ///   - newTokens: the tokens.
  ///   - body: called with the index of the block's first token in `newTokens` and the block's logits,
  ///     `[rows, vocabulary]`.
  public func append(_ newTokens: [Int32], eachLogits body: (Int, [Float]) throws -> Void) throws {
    try run(newTokens, line: 0) { rows, done in
      for start in stride(from: 0, to: rows, by: RunState<B>.logitRows) {
        let block = start..<min(start + RunState<B>.logitRows, rows)
        try body(done - rows + start, decoder.logits(rows: block, state: state))
      }
    }
  }

  /// Continues every sequence by one token in a single pass.
  ///
  /// - Parameter next: one token for each sequence, in order.
  /// - Returns: the logits that follow, `[sequences, vocabulary]`.
  public func step(_ next: [Int32]) throws -> [Float] {
    precondition(next.count == lines.count, "one token for each sequence")
    if case .establishing = small?.phase {
      // The record is of sequence 0 alone.
      return try next.indices.flatMap { try append([next[$0]], to: $0) }
    }
    try pass(next.indices.map { ($0, [next[$0]]) })
    return decoder.logits(rows: next.indices, state: state)
  }

  /// Forgets the tokens of a sequence from `count` on, so that another continuation can be read.
  ///
  /// A map that is established stays, also where the tokens that established it are forgotten.
  public func truncate(_ line: Int = 0, to count: Int) {
    guard count < lines[line].tokens.count else { return }
    lines[line].tokens.removeSubrange(count...)
    state.store.truncate(lines[line].large, to: count)
    guard let small else { return }
    small.state.store.truncate(lines[line].small, to: count)
    if line == 0, case .establishing(let large, let smallRecord) = small.phase {
      large.truncate(to: count)
      smallRecord.truncate(to: count)
    }
  }

  /// Makes every sequence `length` tokens long, with random keys and values in place of those of tokens: what follows
  /// takes the time and memory that it takes after `length` tokens, without the time of reading them.
  ///
  /// - Precondition: the map is established, or there is no lender.
  package func pad(to length: Int) throws {
    if case .establishing = small?.phase { preconditionFailure("padding needs an established map") }
    guard length <= contextLength else { throw DecoderError.contextExceeded(needed: length, limit: contextLength) }
    for index in lines.indices where lines[index].tokens.count < length {
      try state.store.pad(lines[index].large, to: length)
      try small?.state.store.pad(lines[index].small, to: length)
      lines[index].tokens += Array(repeating: 0, count: length - lines[index].tokens.count)
    }
  }

  /// Runs tokens of a sequence pass by pass; `each` is called with the rows of the pass and the number of tokens done.
  private func run(_ newTokens: [Int32], line: Int, each: (Int, Int) throws -> Void) throws {
    let needed = lines[line].tokens.count + newTokens.count
    guard needed <= contextLength else { throw DecoderError.contextExceeded(needed: needed, limit: contextLength) }
    var done = 0
    while done < newTokens.count {
      let count = min(newTokens.count - done, line == 0 ? passLimit : state.rowCapacity)
      try pass([(line, Array(newTokens[done..<done + count]))])
      done += count
      if line == 0 { try establishIfDue(isLast: done == newTokens.count) }
      try each(count, done)
    }
  }

  /// Rows that the next pass of sequence 0 may have: the map is established at a fixed number of tokens.
  private var passLimit: Int {
    guard case .establishing(let large, _) = small?.phase, let lender else { return state.rowCapacity }
    return min(state.rowCapacity, lender.recipe.establishmentTokens - large.rowCount)
  }

  /// One pass of both models over new tokens of some sequences.
  private func pass(_ parts: [(line: Int, tokens: [Int32])]) throws {
    var largeBatch = Batch()
    var smallBatch = Batch()
    for part in parts {
      let line = lines[part.line]
      largeBatch.append(part.tokens, to: line.large, from: line.tokens.count)
      smallBatch.append(part.tokens, to: line.small, from: line.tokens.count)
    }
    if let small, let lender {
      switch small.phase {
      case .establishing(let large, let smallRecord):
        let isRecorded = parts.allSatisfy { $0.line == 0 }
        try lender.decoder.forward(smallBatch, state: small.state, lending: isRecorded ? smallRecord : nil)
        try decoder.forward(largeBatch, state: state, lending: isRecorded ? large : nil)
      case .borrowing(let lent):
        lent.truncate()
        if smallBatch.runs.allSatisfy({ $0.rows.count <= AttentionTiles.mostRows }) {
          try lent.keepRows(of: plan.lentHeads, runs: smallBatch.runs)
        }
        try lender.decoder.forward(smallBatch, state: small.state, lending: lent, depth: plan.lenderDepth)
        try decoder.forward(largeBatch, state: state, borrowing: Borrowing(plan: plan, lent: lent))
      }
    } else {
      try decoder.forward(largeBatch, state: state)
    }
    for part in parts { lines[part.line].tokens += part.tokens }
  }

  /// Finds the map once there are τ_t tokens, or fewer but at least τ_e at the end of what is to be read; then drops
  /// what the plan makes superfluous.
  private func establishIfDue(isLast: Bool) throws {
    guard case .establishing(let large, let smallRecord) = small?.phase, let lender, let small else { return }
    let count = large.rowCount
    let recipe = lender.recipe
    guard count >= recipe.establishmentTokens || (isLast && count >= recipe.minimumTokens) else { return }
    plan = try recipe.plan(
      large: large, small: smallRecord,
      layerCounts: (decoder.configuration.layerCount, lender.decoder.configuration.layerCount),
      runs: (
        SequenceRows(sequence: lines[0].large, rows: 0..<count, firstPosition: 0),
        SequenceRows(sequence: lines[0].small, rows: 0..<count, firstPosition: 0)
      ),
      backend: decoder.backend)
    for unit in plan.borrowedUnits { state.store.dropKeys(layer: unit.layer, head: unit.group) }
    small.state.store.dropLayers(from: plan.lenderDepth)
    self.small?.phase = .borrowing(
      try LentAttention(
        backend: lender.decoder.backend, store: small.state.store, layers: plan.lentHeads.map(\.layer),
        rowCapacity: small.state.rowCapacity))
  }

  /// What the caches hold.
  public var kvBytes: KVBytes {
    KVBytes(
      large: state.store.byteCount, small: small?.state.store.byteCount ?? 0, unmapped: state.store.fullByteCount)
  }
}

/// Bytes allocated for keys and values. Encoded as the command line's JSON, with the total.
public struct KVBytes: Sendable, Hashable, Encodable {
  /// The large model's.
  public var large: Int
  /// The small model's; 0 where none runs.
  public var small: Int
  /// What the large model alone allocates for the same tokens in the same type.
  public var unmapped: Int

  /// Both models'.
  public var total: Int { large + small }

  private enum CodingKeys: String, CodingKey {
    case total = "kv_bytes"
    case large = "kv_bytes_large"
    case small = "kv_bytes_small"
    case unmapped = "kv_bytes_unmapped"
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(total, forKey: .total)
    try container.encode(large, forKey: .large)
    try container.encode(small, forKey: .small)
    try container.encode(unmapped, forKey: .unmapped)
  }
}
