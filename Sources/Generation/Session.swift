// Sequences being read and continued, by a model alone or with attention borrowed from a small one: the running part
// of IAM (arXiv 2507.11953).
//
// The small model goes first over each chunk of rows, the large one follows and borrows. By a recipe the first τ_t
// tokens run unmapped in both and establish the map; the keys of mapped layers are then dropped. A plan made beforehand
// holds from the first token on. In long generations a recipe may find its map anew, on the newest tokens.

import KindredAttention
import KindredAttentionMapping
import KindredCompute
import KindredKVStore
import KindredTransformer

/// One or several sequences and the state that one or two models need to continue them.
///
/// A session begins with one empty sequence, number 0. By a recipe the map is established on the first tokens of
/// sequence 0 and holds for all of them.
///
/// With `PaperRecipe.remapEvery` the map is found anew each time as many tokens have been read one by one, as
/// generation does. The keys of mapped layers are gone by then, so the whole past cannot be compared: both models read
/// the last τ_t tokens of sequence 0 once more, unmapped and from an empty cache of their own, and the map is that of
/// these tokens alone. The mapped layers stay, their heads change; because any small head may be wanted later, the
/// small model runs whole and keeps all of its cache.
///
/// Not `Sendable`: one thread uses it at a time.
public final class Session<B: Backend> {
  /// How a session runs.
  public struct Options: Sendable {
    /// The type of stored keys and values.
    public var kvType = KVType.f16
    /// The type of the small model's; ``kvType``, where `nil`.
    public var smallKVType: KVType?
    /// Rows of one pass in prefill.
    public var chunkRows = 512

    public init() {}
  }

  /// Where the large model's attention comes from.
  public enum Mapping: Sendable {
    /// From a small model, as a recipe finds on the first tokens.
    case established(small: DecoderModel<B>, recipe: PaperRecipe)
    /// As a plan says that was made beforehand; `small` is `nil` where the plan uses no small head.
    case planned(small: DecoderModel<B>?, plan: AttentionPlan)

    /// The lending model.
    public var small: DecoderModel<B>? {
      switch self {
      case .established(let small, _): small
      case .planned(let small, _): small
      }
    }

    /// Tokens of the first prompt that run unmapped, at most.
    public var unmappedTokens: Int {
      if case .established(_, let recipe) = self { recipe.establishmentTokens } else { 0 }
    }
  }

  /// The tokens of sequence 0 so far.
  public var tokens: [Int32] { sequences[0].tokens }
  /// Where each unit of the large model takes its attention from; ordinary until the map is established.
  public private(set) var plan: AttentionPlan

  private let decoder: DecoderModel<B>
  private let lender: DecoderModel<B>?
  private let options: Options
  private let state: RunState<B>
  private let smallState: RunState<B>?
  private var sequences: [StoredSequence] = []
  private var phase = Phase.unmapped
  /// Where the map is found anew from time to time: how, and the tokens generated since it was found.
  private var remapping: (recipe: PaperRecipe, generated: Int)?

  /// A sequence: its tokens, and its number in each model's cache.
  private struct StoredSequence {
    var tokens: [Int32] = []
    let large: Int
    let small: Int
  }

  /// What is recorded of the models' attention.
  private enum Phase {
    /// Nothing: the large model runs alone.
    case unmapped
    /// All layers of both models, until there are enough tokens for a map.
    case establishing(PaperRecipe, large: LentAttention<B>, small: LentAttention<B>)
    /// The heads that the plan uses.
    case mapped(Borrowing<B>)
  }

  /// Starts with one empty sequence.
  ///
  /// With a recipe or a plan that maps nothing, or a plan that uses no small head, the small model does not run at all.
  ///
  /// - Throws: `ComputeError` where memory is lacking or a type does not suit the heads, `RecipeError` for a recipe that
  ///   makes no sense, `LayerSelection.SelectionError` for layers that the large model does not have, `PlanError` for a
  ///   plan that does not fit the models.
  public init(decoder: DecoderModel<B>, mapping: Mapping? = nil, options: Options = Options()) throws {
    self.decoder = decoder
    self.options = options
    let configuration = decoder.configuration
    let rows = max(1, min(options.chunkRows, configuration.contextLength))
    let own = AttentionPlan.own(layers: configuration.layerCount, kvHeads: configuration.attention.kvHeads)
    plan = own
    state = try RunState(configuration, backend: decoder.backend, rowCapacity: rows, kvType: options.kvType)
    lender = try mapping.flatMap { try Self.lender(of: $0, for: configuration) }
    smallState = try lender.map {
      try RunState(
        $0.configuration, backend: $0.backend, rowCapacity: rows, kvType: options.smallKVType ?? options.kvType)
    }
    switch mapping {
    case .established(_, let recipe): try establish(recipe)
    case .planned(_, let plan) where plan != own: try adopt(plan)
    case .planned, nil: break
    }
    addSequence()
  }

  /// The small model, where it has to run.
  private static func lender(of mapping: Mapping, for large: DecoderConfiguration) throws -> DecoderModel<B>? {
    switch mapping {
    case .established(let small, let recipe):
      try recipe.check(layerCount: large.layerCount)
      return try recipe.layers.count(of: large.layerCount) == 0 ? nil : small
    case .planned(let small, let plan):
      try plan.validate(large: large.shape, small: small?.configuration.shape)
      return plan.lenderDepth > 0 ? small : nil
    }
  }

  /// Records all layers of both models from now on.
  private func establish(_ recipe: PaperRecipe) throws(ComputeError) {
    guard let lender, let smallState else { return }
    func record(_ model: DecoderModel<B>, _ store: KVStore<B>) throws(ComputeError) -> LentAttention<B> {
      try LentAttention(
        backend: model.backend, store: store, layers: 0..<model.configuration.layerCount,
        rowCapacity: recipe.establishmentTokens)
    }
    if recipe.remapEvery != nil { remapping = (recipe, 0) }
    phase = .establishing(recipe, large: try record(decoder, state.store), small: try record(lender, smallState.store))
  }

  /// Runs by a plan from now on, and drops what it makes superfluous.
  private func adopt(_ newPlan: AttentionPlan) throws(ComputeError) {
    plan = newPlan
    state.store.adopt(plan)
    if remapping == nil { smallState?.store.lend(for: plan) }
    phase = .mapped(try Borrowing(plan, large: state.store, small: smallState?.store, rowCapacity: state.rowCapacity))
  }

  /// Positions that both models can hold.
  public var contextLength: Int {
    min(decoder.configuration.contextLength, lender?.configuration.contextLength ?? .max)
  }

  /// Logits of a row.
  public var vocabularySize: Int { decoder.configuration.vocabularySize }

  /// Adds an empty sequence and returns its number.
  @discardableResult
  public func addSequence() -> Int {
    sequences.append(StoredSequence(large: state.store.addSequence(), small: smallState?.store.addSequence() ?? 0))
    return sequences.count - 1
  }

  /// Adds a sequence that has read what another one has, and returns its number. What both have read is stored once.
  ///
  /// The map is established on sequence 0: by a recipe, no other one counts as long as it has none.
  public func fork(_ sequence: Int) -> Int {
    let forked = sequences[sequence]
    sequences.append(
      StoredSequence(
        tokens: forked.tokens, large: state.store.fork(forked.large),
        small: smallState?.store.fork(forked.small) ?? 0))
    return sequences.count - 1
  }

  /// Removes the sequences numbered `first`, at least 1, and above.
  public func removeSequences(from first: Int) {
    precondition(first > 0, "sequence 0 stays")
    for sequence in sequences.dropFirst(first) {
      state.store.remove(sequence.large)
      smallState?.store.remove(sequence.small)
    }
    sequences.removeSubrange(min(first, sequences.count)...)
  }

  /// Reads tokens of a sequence and returns the logits that follow the last one, `[vocabulary]`.
  ///
  /// - Parameters:
  ///   - newTokens: at least one token.
  ///   - sequence: the number of the sequence that goes on.
  ///   - progress: called after each pass with the number of new tokens read; what it throws ends the reading, and
  ///     the session keeps the tokens read so far.
  /// - Throws: `DecoderError`; the session then holds the tokens of the passes that succeeded.
  public func append(
    _ newTokens: [Int32], to sequence: Int = 0, progress: (Int) throws -> Void = { _ in }
  ) throws -> [Float] {
    precondition(!newTokens.isEmpty, "append needs at least one token")
    var last = 0
    try run(newTokens, sequence: sequence, wanted: 1) { rows, done in
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
    try run(newTokens, sequence: 0, wanted: newTokens.count) { rows, done in
      for start in stride(from: 0, to: rows, by: RunState<B>.logitRows) {
        let block = start..<min(start + RunState<B>.logitRows, rows)
        try body(done - rows + start, decoder.logits(rows: block, state: state))
      }
    }
  }

  /// Tokens by which a sequence is continued.
  public struct Part: Sendable, Hashable {
    /// The sequence.
    public var sequence: Int
    /// At least one.
    public var tokens: [Int32]
    /// The number of the last tokens of which results are wanted.
    public var wanted: Int

    public init(sequence: Int, tokens: [Int32], wanted: Int = 1) {
      self.sequence = sequence
      self.tokens = tokens
      self.wanted = wanted
    }
  }

  /// Continues some sequences, each named once, in as few passes as their tokens need: rows of different sequences share
  /// a pass. Results are those of one sequence after the other, as far as `Backend` says.
  ///
  /// - Parameters:
  ///   - parts: what is read.
  ///   - body: called with the index of a part, that of a token of it, and the logits that follow it, `[vocabulary]`,
  ///     for each wanted token.
  /// - Throws: `DecoderError`; each sequence then holds the tokens of the passes that succeeded.
  public func append(_ parts: [Part], eachLogits body: (Int, Int, [Float]) throws -> Void) throws {
    let vocabulary = decoder.configuration.vocabularySize
    try run(parts) { rows in
      for start in stride(from: 0, to: rows.count, by: RunState<B>.logitRows) {
        let block = rows[start..<min(start + RunState<B>.logitRows, rows.count)]
        let logits = decoder.logits(rows: block.map(\.row), state: state)
        for (index, place) in block.enumerated() {
          try body(place.part, place.token, Array(logits[index * vocabulary..<(index + 1) * vocabulary]))
        }
      }
    }
  }

  /// Continues some sequences as ``append(_:eachLogits:)`` does, and returns the final hidden state of the last token of
  /// each, after the model's last norm, `[parts][E]`.
  public func finalStates(after parts: [Part]) throws -> [[Float]] {
    var states = Array(repeating: [Float](), count: parts.count)
    try run(parts) { rows in
      for place in rows where place.token == parts[place.part].tokens.count - 1 {
        states[place.part] = decoder.finalState(row: place.row, state: state)
      }
    }
    return states
  }

  /// Continues every sequence by one token in a single pass.
  ///
  /// - Parameter next: one token for each sequence, in order.
  /// - Returns: the logits that follow, `[sequences, vocabulary]`.
  public func step(_ next: [Int32]) throws -> [Float] {
    precondition(next.count == sequences.count, "one token for each sequence")
    if case .establishing = phase {
      // The record is of sequence 0 alone.
      return try next.indices.flatMap { try append([next[$0]], to: $0) }
    }
    try pass(next.indices.map { ($0, [next[$0]]) })
    try remapIfDue()
    return decoder.logits(rows: next.indices, state: state)
  }

  /// Forgets the tokens of a sequence from `count` on, so that another continuation can be read; all of its tokens
  /// where a near window no longer has the keys that the next token needs.
  ///
  /// A map that is established stays, also where the tokens that established it are forgotten.
  public func truncate(_ sequence: Int = 0, to count: Int) {
    guard count < sequences[sequence].tokens.count else { return }
    cut(sequence, to: count)
  }

  private func cut(_ sequence: Int, to count: Int) {
    let left = state.store.truncate(sequences[sequence].large, to: count)
    smallState?.store.truncate(sequences[sequence].small, to: left)
    sequences[sequence].tokens.removeSubrange(left...)
    if sequence == 0, case .establishing(_, let large, let small) = phase {
      large.truncate(to: left)
      small.truncate(to: left)
    }
  }

  /// Makes every sequence `length` tokens long, with random keys and values in place of those of tokens: what follows
  /// takes the time and memory that it takes after `length` tokens, without the time of reading them.
  ///
  /// - Precondition: the map is established, or there is none to establish.
  package func pad(to length: Int) throws {
    if case .establishing = phase { preconditionFailure("padding needs an established map") }
    guard length <= contextLength else { throw DecoderError.contextExceeded(needed: length, limit: contextLength) }
    for index in sequences.indices where sequences[index].tokens.count < length {
      try state.store.pad(sequences[index].large, to: length)
      try smallState?.store.pad(sequences[index].small, to: length)
      sequences[index].tokens += Array(repeating: 0, count: length - sequences[index].tokens.count)
    }
  }

  /// Whether so many tokens are read as `Backend.manyRows` rows are, also where a pass has fewer of them.
  private func areMany(_ count: Int) -> Bool { count >= decoder.backend.manyRows }

  /// Whether the `wanted` of `count` tokens get passes of their own, in which results are as precise as in decode.
  private func areReadApart(_ wanted: Int, of count: Int) -> Bool {
    areMany(count) && !areMany(wanted) && 0 < wanted && wanted < count
  }

  /// Runs tokens of a sequence pass by pass; `each` is called with the rows of the pass and the number of tokens done.
  private func run(_ newTokens: [Int32], sequence: Int, wanted: Int, each: (Int, Int) throws -> Void) throws {
    let needed = sequences[sequence].tokens.count + newTokens.count
    guard needed <= contextLength else { throw DecoderError.contextExceeded(needed: needed, limit: contextLength) }
    let first = newTokens.count - (areReadApart(wanted, of: newTokens.count) ? wanted : 0)
    var done = 0
    while done < newTokens.count {
      let isApart = done >= first
      let count = min((isApart ? newTokens.count : first) - done, sequence == 0 ? passLimit : state.rowCapacity)
      try pass(
        [(sequence, Array(newTokens[done..<done + count]))], isPartOfMany: areMany(newTokens.count) && !isApart,
        wantsOutput: done + count > newTokens.count - wanted)
      done += count
      if sequence == 0 {
        try establishIfDue(isLast: done == newTokens.count)
        try remapIfDue()
      }
      try each(count, done)
    }
  }

  /// A wanted token, and the row of the last pass in which it was read.
  private typealias WantedRow = (part: Int, token: Int, row: Int)

  /// Runs tokens of some sequences, filling each pass; `each` is called after a pass with its wanted tokens.
  private func run(_ parts: [Part], each: ([WantedRow]) throws -> Void) throws {
    for part in parts {
      precondition(!part.tokens.isEmpty, "a part needs at least one token")
      let needed = sequences[part.sequence].tokens.count + part.tokens.count
      guard needed <= contextLength else { throw DecoderError.contextExceeded(needed: needed, limit: contextLength) }
    }
    if case .establishing = phase {
      // The record is of sequence 0 alone.
      for (index, part) in parts.enumerated() {
        try run(part.tokens, sequence: part.sequence, wanted: part.wanted) { rows, done in
          try each(wantedRows(of: part, index, in: done - rows..<done, firstRow: 0))
        }
      }
      return
    }
    let count = parts.reduce(0) { $0 + $1.tokens.count }
    guard areReadApart(parts.reduce(0) { $0 + $1.wanted }, of: count) else {
      return try fillPasses(parts, isPartOfMany: areMany(count), each: each)
    }
    let others = parts.map { Part(sequence: $0.sequence, tokens: $0.tokens.dropLast($0.wanted), wanted: 0) }
    try fillPasses(others.filter { !$0.tokens.isEmpty }, isPartOfMany: true) { _ in }
    let last = parts.indices.filter { parts[$0].wanted > 0 }
    let lastParts = last.map {
      Part(sequence: parts[$0].sequence, tokens: parts[$0].tokens.suffix(parts[$0].wanted), wanted: parts[$0].wanted)
    }
    try fillPasses(lastParts, isPartOfMany: false) { rows in
      try each(rows.map { (last[$0.part], others[last[$0.part]].tokens.count + $0.token, $0.row) })
    }
  }

  /// The wanted ones of some tokens of a part, which a pass has read in the rows from `firstRow` on.
  private func wantedRows(of part: Part, _ index: Int, in tokens: Range<Int>, firstRow: Int) -> [WantedRow] {
    let first = part.tokens.count - part.wanted
    return tokens.filter { $0 >= first }.map { (index, $0, firstRow + $0 - tokens.lowerBound) }
  }

  /// Runs all tokens in as few passes as they need.
  private func fillPasses(_ parts: [Part], isPartOfMany: Bool, each: ([WantedRow]) throws -> Void) throws {
    var (index, done) = (0, 0)
    while index < parts.count {
      var rows = 0
      var batch: [(sequence: Int, tokens: [Int32])] = []
      var places: [WantedRow] = []
      while index < parts.count, rows < state.rowCapacity {
        let tokens = done..<min(done + state.rowCapacity - rows, parts[index].tokens.count)
        batch.append((parts[index].sequence, Array(parts[index].tokens[tokens])))
        places += wantedRows(of: parts[index], index, in: tokens, firstRow: rows)
        rows += tokens.count
        (index, done) = tokens.upperBound == parts[index].tokens.count ? (index + 1, 0) : (index, tokens.upperBound)
      }
      try pass(batch, isPartOfMany: isPartOfMany, wantsOutput: !places.isEmpty)
      try each(places)
      try remapIfDue()
    }
  }

  /// Rows that the next pass of sequence 0 may have: the map is established at a fixed number of tokens.
  private var passLimit: Int {
    guard case .establishing(let recipe, let large, _) = phase else { return state.rowCapacity }
    return min(state.rowCapacity, recipe.establishmentTokens - large.rowCount)
  }

  /// One pass of both models over new tokens of some sequences, of some of which the large one's output may be wanted.
  private func pass(
    _ parts: [(sequence: Int, tokens: [Int32])], isPartOfMany: Bool = false, wantsOutput: Bool = true
  ) throws {
    var largeBatch = Batch(isPartOfMany: isPartOfMany)
    var smallBatch = Batch(isPartOfMany: isPartOfMany)
    for part in parts {
      let sequence = sequences[part.sequence]
      largeBatch.append(part.tokens, to: sequence.large, from: sequence.tokens.count)
      smallBatch.append(part.tokens, to: sequence.small, from: sequence.tokens.count)
    }
    largeBatch.wantsOutput = wantsOutput
    smallBatch.wantsOutput = false
    do {
      switch phase {
      case .unmapped: try decoder.forward(largeBatch, state: state)
      case .establishing(_, let large, let small):
        let isRecorded = parts.allSatisfy { $0.sequence == 0 }
        try forwardSmall(smallBatch, lending: isRecorded ? small : nil)
        try decoder.forward(largeBatch, state: state, lending: isRecorded ? large : nil)
      case .mapped(let borrowing):
        try borrowing.beginPass(runs: largeBatch.runs)
        let depth = remapping == nil ? plan.lenderDepth : lender?.configuration.layerCount
        try forwardSmall(smallBatch, lending: borrowing.lent, depth: depth)
        try decoder.forward(largeBatch, state: state, borrowing: borrowing, lending: borrowing.shared)
        if parts.contains(where: { $0.sequence == 0 && $0.tokens.count == 1 }) { remapping?.generated += 1 }
      }
    } catch {
      for part in parts { cut(part.sequence, to: sequences[part.sequence].tokens.count) }
      throw error
    }
    for part in parts { sequences[part.sequence].tokens += part.tokens }
  }

  private func forwardSmall(_ batch: Batch, lending: LentAttention<B>?, depth: Int? = nil) throws(DecoderError) {
    guard let lender, let smallState else { return }
    try lender.forward(batch, state: smallState, lending: lending, depth: depth)
  }

  /// Finds the map once there are τ_t tokens, or fewer but at least τ_e at the end of what is to be read; then drops
  /// what the plan makes superfluous.
  private func establishIfDue(isLast: Bool) throws {
    guard case .establishing(let recipe, let large, let small) = phase, let lender else { return }
    let count = large.rowCount
    guard count >= recipe.establishmentTokens || (isLast && count >= recipe.minimumTokens) else { return }
    try adopt(
      try recipe.plan(
        large: large, small: small,
        layerCounts: (decoder.configuration.layerCount, lender.configuration.layerCount),
        runs: (
          SequenceRows(sequence: sequences[0].large, rows: 0..<count, firstPosition: 0),
          SequenceRows(sequence: sequences[0].small, rows: 0..<count, firstPosition: 0)
        ),
        backend: decoder.backend))
  }

  /// Finds the map anew where enough tokens were generated since it was found.
  private func remapIfDue() throws {
    guard let (recipe, generated) = remapping, let every = recipe.remapEvery, generated >= every, let lender else {
      return
    }
    // A session that establishes a map on these tokens and does nothing else.
    let newest = Array(tokens.suffix(recipe.establishmentTokens))
    var once = recipe
    once.layers = .explicit(Set(plan.mappedUnits.map(\.layer)).sorted())
    once.establishmentTokens = newest.count
    once.minimumTokens = newest.count
    once.remapEvery = nil
    var options = options
    options.chunkRows = newest.count
    let scratch = try Session(decoder: decoder, mapping: .established(small: lender, recipe: once), options: options)
    try scratch.run(newest, sequence: 0, wanted: newest.count) { _, _ in }
    remapping = (recipe, 0)
    try adopt(scratch.plan)
  }

  /// What the caches hold of one sequence; where it shares with others, all that it uses.
  public func kvBytes(of sequence: Int) -> KVBytes {
    let sequence = sequences[sequence]
    return KVBytes(
      large: state.store.byteCount(of: sequence.large), small: smallState?.store.byteCount(of: sequence.small) ?? 0,
      unmapped: state.store.fullByteCount(of: sequence.large))
  }

  /// What the caches hold; what sequences share counts once.
  public var kvBytes: KVBytes {
    KVBytes(
      large: state.store.byteCount, small: smallState?.store.byteCount ?? 0, unmapped: state.store.fullByteCount)
  }
}
