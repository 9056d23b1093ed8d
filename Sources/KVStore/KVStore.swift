// The KV cache: keys and values of each sequence, layer and KV head, in pages.
//
// Pages are allocated as positions arrive and freed as they are dropped, so `byteCount` is what the cache really
// holds. A unit (a KV head of a layer) whose attention is borrowed stores no keys, or only those in a near window, in
// blocks; a layer that is never run stores nothing.

import KindredCompute

/// Consecutive rows of a batch that continue one sequence.
public struct SequenceRows: Sendable, Hashable {
  /// The sequence, as ``KVStore`` numbers it.
  public var sequence: Int
  /// Rows of the batch.
  public var rows: Range<Int>
  /// The position of the first row.
  public var firstPosition: Int

  public init(sequence: Int, rows: Range<Int>, firstPosition: Int) {
    self.sequence = sequence
    self.rows = rows
    self.firstPosition = firstPosition
  }
}

/// Keys and values of a set of sequences of one model.
///
/// The store owns its pages. Everything that hands out pages (``segments(_:layer:)``) expects
/// ``extend(_:to:)`` to have made room, and pages stay valid until the sequence is truncated or removed or
/// the unit is dropped.
public final class KVStore<B: Backend> {
  /// A sequence in the store. Two stores that run in step number their sequences alike.
  public typealias SequenceID = Int

  /// The positions whose keys, or values, a unit stores.
  private enum Retention: Equatable {
    case all, none
    case near(NearWindow)
  }

  /// Keys, or values, of one unit of one sequence.
  private struct Stored {
    /// Every position's, where the unit stores all.
    var pages: [B.Page] = []
    /// Near positions', by block, where it stores only these.
    var blocks: [Int: B.Page] = [:]

    /// Adds the pages that positions `positions` need, after those that are stored. A page that is begun and that
    /// another sequence uses, too, is copied.
    mutating func grow(
      for positions: Range<Int>, copy: (B.Page) throws(ComputeError) -> B.Page,
      makePage: () throws(ComputeError) -> B.Page
    ) throws(ComputeError) {
      let (begun, offset) = positions.lowerBound.quotientAndRemainder(dividingBy: KVPageLayout.positions)
      if offset > 0, begun < pages.count, !isKnownUniquelyReferenced(&pages[begun]) {
        pages[begun] = try copy(pages[begun])
      }
      while pages.count < KVPageLayout.pageCount(length: positions.upperBound) { pages.append(try makePage()) }
    }

    /// Adds the blocks that rows at `positions` need. A block that is begun and that another sequence uses, too, is
    /// copied.
    mutating func grow(
      _ window: NearWindow, for positions: Range<Int>, copy: (B.Page) throws(ComputeError) -> B.Page,
      makeBlock: () throws(ComputeError) -> B.Page
    ) throws(ComputeError) {
      let (begun, offset) = positions.lowerBound.quotientAndRemainder(dividingBy: KVPageLayout.blockPositions)
      if offset > 0, !isKnownUniquelyReferenced(&blocks[begun]), let block = blocks[begun] {
        blocks[begun] = try copy(block)
      }
      for block in window.neededBlocks(for: positions) where blocks[block] == nil { blocks[block] = try makeBlock() }
    }

    /// Frees the blocks that no row from position `next` on needs.
    mutating func trim(_ window: NearWindow, next: Int) {
      for block in blocks.keys where !window.needs(block, for: next..<next + 1) { blocks[block] = nil }
    }
  }

  /// What is stored of one sequence.
  private struct Sequence {
    var length = 0
    /// Whether another sequence has, or had, the same pages.
    var isShared = false
    var keys: [[Stored]]  // [layer][KV head]
    var values: [[Stored]]  // [layer][KV head]
  }

  /// Layers, `L`.
  public let layerCount: Int
  /// The heads of a layer.
  public let shape: AttentionShape
  /// The type of stored elements.
  public let type: KVType

  /// Where the pages are.
  public let backend: B
  private var retention: [[(keys: Retention, values: Retention)]]  // [layer][KV head]
  private var sequences: [SequenceID: Sequence] = [:]
  private var nextID = 0

  public init(backend: B, layerCount: Int, shape: AttentionShape, type: KVType) {
    self.backend = backend
    self.layerCount = layerCount
    self.shape = shape
    self.type = type
    retention = Array(repeating: Array(repeating: (.all, .all), count: shape.kvHeads), count: layerCount)
  }

  // MARK: Sequences

  /// Adds an empty sequence.
  public func addSequence() -> SequenceID {
    let empty = Array(repeating: Array(repeating: Stored(), count: shape.kvHeads), count: layerCount)
    defer { nextID += 1 }
    sequences[nextID] = Sequence(keys: empty, values: empty)
    return nextID
  }

  /// Adds a sequence that holds what another one holds. The two share pages; one is copied when either of them writes
  /// into it.
  public func fork(_ id: SequenceID) -> SequenceID {
    defer { nextID += 1 }
    sequences[id]?.isShared = true
    sequences[nextID] = sequences[id]
    return nextID
  }

  /// Frees a sequence.
  public func remove(_ id: SequenceID) { sequences[id] = nil }

  /// Positions stored of a sequence.
  public func length(of id: SequenceID) -> Int { sequences[id]?.length ?? 0 }

  /// Makes room for positions up to `length`, except in near windows (``growWindows(_:layer:)``).
  ///
  /// - Throws: `ComputeError.outOfMemory`; the sequence then keeps its length.
  public func extend(_ id: SequenceID, to length: Int) throws(ComputeError) {
    guard let start = sequences[id]?.length, length > start else { return }
    // Most tokens fit the pages that are there; to ask each unit would take time that counts in decode.
    let isShared = sequences[id]?.isShared ?? false
    if isShared || KVPageLayout.pageCount(length: start) < KVPageLayout.pageCount(length: length) {
      try growPages(of: id, for: start..<length)
    }
    sequences[id]?.length = length
  }

  private func growPages(of id: SequenceID, for positions: Range<Int>) throws(ComputeError) {
    for layer in 0..<layerCount {
      for head in 0..<shape.kvHeads {
        if retention[layer][head].keys == .all {
          try sequences[id]?.keys[layer][head].grow(for: positions, copy: backend.copyPage, makePage: makePage)
        }
        if retention[layer][head].values == .all {
          try sequences[id]?.values[layer][head].grow(for: positions, copy: backend.copyPage, makePage: makePage)
        }
      }
    }
  }

  /// Extends a sequence by positions with random keys and values, from -1 to 1 and the same in every page.
  package func pad(_ id: SequenceID, to length: Int) throws(ComputeError) {
    let start = self.length(of: id)
    let block = KVPageLayout.positions
    let columns = shape.kvHeads * shape.headDimension
    let rows = try backend.makeTensor(rows: block, columns: columns)
    backend.write((0..<block * columns).map { _ in Float.random(in: -1...1) }, to: rows)
    try extend(id, to: length)
    for first in stride(from: start, to: length, by: block) {
      let run = SequenceRows(sequence: id, rows: 0..<min(block, length - first), firstPosition: first)
      for layer in 0..<layerCount {
        try growWindows([run], layer: layer)
        let segments = segments([run], layer: layer)
        for part in [KVPart.keys, .values] { backend.store(rows, as: part, in: segments, type: type) }
        trimWindows([run], layer: layer)
      }
    }
  }

  /// Forgets the positions from `length` on; all of them where a near window no longer has what the next row needs.
  ///
  /// - Returns: the positions that are left.
  @discardableResult
  public func truncate(_ id: SequenceID, to length: Int) -> Int {
    guard var sequence = sequences[id], length < sequence.length else { return self.length(of: id) }
    let left = canContinue(sequence, from: length) ? length : 0
    let pages = KVPageLayout.pageCount(length: left)
    let blocks = (left + KVPageLayout.blockPositions - 1) / KVPageLayout.blockPositions
    func cut(_ stored: inout Stored) {
      stored.pages.removeSubrange(min(pages, stored.pages.count)...)
      stored.blocks = stored.blocks.filter { $0.key < blocks }
    }
    for layer in 0..<layerCount {
      for head in 0..<shape.kvHeads {
        cut(&sequence.keys[layer][head])
        cut(&sequence.values[layer][head])
      }
    }
    sequence.length = left
    sequences[id] = sequence
    return left
  }

  private func makePage() throws(ComputeError) -> B.Page {
    try backend.makePage(headDimension: shape.headDimension, type: type)
  }

  // MARK: Units

  /// Frees the keys of a unit in every sequence, and stores none from now on.
  public func dropKeys(layer: Int, head: Int) {
    retention[layer][head].keys = .none
    for id in sequences.keys { sequences[id]?.keys[layer][head] = Stored() }
  }

  /// Stores keys of a unit in a near window only.
  ///
  /// - Parameters:
  ///   - window: the positions.
  ///   - layer: the unit's layer.
  ///   - head: the unit's KV head.
  ///   - dropsValues: whether values are stored there only, too.
  /// - Precondition: every sequence is empty.
  public func keepNear(_ window: NearWindow, layer: Int, head: Int, dropsValues: Bool) {
    precondition(sequences.values.allSatisfy { $0.length == 0 }, "near windows are set before there are positions")
    retention[layer][head] = (.near(window), dropsValues ? .near(window) : .all)
  }

  /// Frees the keys and values of a unit in every sequence, and stores none from now on.
  public func dropUnit(layer: Int, head: Int) {
    dropKeys(layer: layer, head: head)
    retention[layer][head].values = .none
    for id in sequences.keys { sequences[id]?.values[layer][head] = Stored() }
  }

  /// Frees all of the layers from `layer` on, and stores nothing there from now on.
  public func dropLayers(from layer: Int) {
    for index in layer..<max(layer, layerCount) {
      for head in 0..<shape.kvHeads { dropUnit(layer: index, head: head) }
    }
  }

  /// The pages of one layer, for the rows of a batch.
  public func segments(_ runs: [SequenceRows], layer: Int) -> [AttentionSegment<B.Page>] {
    runs.map { run in
      let keys = sequences[run.sequence]?.keys[layer] ?? []
      let values = sequences[run.sequence]?.values[layer] ?? []
      var near: [Int: NearPages<B.Page>] = [:]
      for head in keys.indices {
        guard case .near(let window) = retention[layer][head].keys else { continue }
        let dropsValues = retention[layer][head].values != .all
        near[head] = NearPages(
          window: window, keys: keys[head].blocks, values: dropsValues ? values[head].blocks : nil)
      }
      return AttentionSegment(
        rows: run.rows, firstPosition: run.firstPosition, keys: keys.map { $0.pages }, values: values.map { $0.pages },
        near: near)
    }
  }

  /// The pages of one KV head's keys, for each run of rows.
  public func keyPages(_ runs: [SequenceRows], layer: Int, head: Int) -> [[B.Page]] {
    runs.map { sequences[$0.sequence]?.keys[layer][head].pages ?? [] }
  }

  // MARK: Near windows

  /// Makes room in the near windows of a layer for rows that are about to be stored.
  public func growWindows(_ runs: [SequenceRows], layer: Int) throws(ComputeError) {
    for run in runs {
      let positions = run.firstPosition..<run.firstPosition + run.rows.count
      for (head, retention) in retention[layer].enumerated() {
        if case .near(let window) = retention.keys {
          try sequences[run.sequence]?.keys[layer][head].grow(
            window, for: positions, copy: backend.copyPage, makeBlock: makeBlock)
        }
        if case .near(let window) = retention.values {
          try sequences[run.sequence]?.values[layer][head].grow(
            window, for: positions, copy: backend.copyPage, makeBlock: makeBlock)
        }
      }
    }
  }

  private func makeBlock() throws(ComputeError) -> B.Page {
    try backend.makePage(
      headDimension: shape.headDimension, type: type, positions: KVPageLayout.blockPositions)
  }

  /// Frees what the near windows of a layer need no more, after rows have been attended.
  public func trimWindows(_ runs: [SequenceRows], layer: Int) {
    for run in runs {
      let next = run.firstPosition + run.rows.count
      for (head, retention) in retention[layer].enumerated() {
        guard case .near(let window) = retention.keys else { continue }
        sequences[run.sequence]?.keys[layer][head].trim(window, next: next)
        sequences[run.sequence]?.values[layer][head].trim(window, next: next)
      }
    }
  }

  /// Whether near windows hold what a row at `position` needs of the positions before it.
  private func canContinue(_ sequence: Sequence, from position: Int) -> Bool {
    (0..<layerCount).allSatisfy { layer in
      (0..<shape.kvHeads).allSatisfy { head in
        guard case .near(let window) = retention[layer][head].keys else { return true }
        let needed = window.neededBlocks(for: position..<position + 1)
        return needed.allSatisfy {
          $0 * KVPageLayout.blockPositions >= position || sequence.keys[layer][head].blocks[$0] != nil
        }
      }
    }
  }

  // MARK: Bytes

  /// Bytes of one page, or of a block.
  private func pageBytes(positions: Int = KVPageLayout.positions) -> Int {
    KVPageLayout.byteCount(headDimension: shape.headDimension, type: type, positions: positions)
  }

  /// Bytes allocated for keys and values; what sequences share counts once.
  public var byteCount: Int {
    var counted = Set<ObjectIdentifier>()
    return sequences.values.reduce(0) { $0 + byteCount($1) { counted.insert(ObjectIdentifier($0)).inserted } }
  }

  /// Bytes of one sequence's keys and values, those that it shares with others among them.
  public func byteCount(of id: SequenceID) -> Int { sequences[id].map { byteCount($0) { _ in true } } ?? 0 }

  private func byteCount(_ sequence: Sequence, counts: (B.Page) -> Bool) -> Int {
    let blockBytes = pageBytes(positions: KVPageLayout.blockPositions)
    return (sequence.keys + sequence.values).joined().reduce(0) { total, stored in
      total + stored.pages.count(where: counts) * pageBytes() + stored.blocks.values.count(where: counts) * blockBytes
    }
  }

  /// Bytes that the same sequences take where every unit stores its keys and values and nothing is shared.
  public var fullByteCount: Int { sequences.keys.reduce(0) { $0 + fullByteCount(of: $1) } }

  /// Bytes that one sequence takes where every unit stores its keys and values.
  public func fullByteCount(of id: SequenceID) -> Int {
    KVPageLayout.pageCount(length: length(of: id)) * layerCount * shape.kvHeads * 2 * pageBytes()
  }
}
