// The KV cache: keys and values of each sequence, layer and KV head, in pages.
//
// Pages are allocated as positions arrive and freed as they are dropped, so `byteCount` is what the cache really
// holds. A unit (a KV head of a layer) whose attention is borrowed stores no keys; a layer that is never run stores
// nothing.

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

  /// What a unit stores.
  private struct Retention {
    var keys = true
    var values = true
  }

  /// The pages of one sequence.
  private struct Sequence {
    var length = 0
    var keys: [[[B.Page]]]  // [layer][KV head][page]
    var values: [[[B.Page]]]  // [layer][KV head][page]
  }

  /// Layers, `L`.
  public let layerCount: Int
  /// The heads of a layer.
  public let shape: AttentionShape
  /// The type of stored elements.
  public let type: KVType

  private let backend: B
  private var retention: [[Retention]]  // [layer][KV head]
  private var sequences: [SequenceID: Sequence] = [:]
  private var nextID = 0

  public init(backend: B, layerCount: Int, shape: AttentionShape, type: KVType) {
    self.backend = backend
    self.layerCount = layerCount
    self.shape = shape
    self.type = type
    retention = Array(repeating: Array(repeating: Retention(), count: shape.kvHeads), count: layerCount)
  }

  // MARK: Sequences

  /// Adds an empty sequence.
  public func addSequence() -> SequenceID {
    let empty: [[[B.Page]]] = Array(repeating: Array(repeating: [], count: shape.kvHeads), count: layerCount)
    defer { nextID += 1 }
    sequences[nextID] = Sequence(keys: empty, values: empty)
    return nextID
  }

  /// Frees a sequence.
  public func remove(_ id: SequenceID) { sequences[id] = nil }

  /// Positions stored of a sequence.
  public func length(of id: SequenceID) -> Int { sequences[id]?.length ?? 0 }

  /// Makes room for positions up to `length`.
  ///
  /// - Throws: `ComputeError.outOfMemory`; the sequence then keeps its length.
  public func extend(_ id: SequenceID, to length: Int) throws(ComputeError) {
    guard var sequence = sequences[id], length > sequence.length else { return }
    let pages = KVPageLayout.pageCount(length: length)
    for layer in 0..<layerCount {
      for head in 0..<shape.kvHeads {
        if retention[layer][head].keys { try fill(&sequence.keys[layer][head], to: pages) }
        if retention[layer][head].values { try fill(&sequence.values[layer][head], to: pages) }
      }
    }
    sequence.length = length
    sequences[id] = sequence
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
        let segments = segments([run], layer: layer)
        for part in [KVPart.keys, .values] { backend.store(rows, as: part, in: segments, type: type) }
      }
    }
  }

  /// Forgets the positions from `length` on.
  public func truncate(_ id: SequenceID, to length: Int) {
    guard var sequence = sequences[id], length < sequence.length else { return }
    let pages = KVPageLayout.pageCount(length: length)
    for layer in 0..<layerCount {
      for head in 0..<shape.kvHeads {
        sequence.keys[layer][head].removeSubrange(min(pages, sequence.keys[layer][head].count)...)
        sequence.values[layer][head].removeSubrange(min(pages, sequence.values[layer][head].count)...)
      }
    }
    sequence.length = length
    sequences[id] = sequence
  }

  private func fill(_ list: inout [B.Page], to count: Int) throws(ComputeError) {
    while list.count < count {
      list.append(try backend.makePage(headDimension: shape.headDimension, type: type))
    }
  }

  // MARK: Units

  /// Frees the keys of a unit in every sequence, and stores none from now on.
  public func dropKeys(layer: Int, head: Int) {
    retention[layer][head].keys = false
    for id in sequences.keys { sequences[id]?.keys[layer][head] = [] }
  }

  /// Frees all of the layers from `layer` on, and stores nothing there from now on.
  public func dropLayers(from layer: Int) {
    for index in layer..<max(layer, layerCount) {
      for head in 0..<shape.kvHeads {
        dropKeys(layer: index, head: head)
        retention[index][head].values = false
        for id in sequences.keys { sequences[id]?.values[index][head] = [] }
      }
    }
  }

  /// The pages of one layer, for the rows of a batch.
  public func segments(_ runs: [SequenceRows], layer: Int) -> [AttentionSegment<B.Page>] {
    runs.map { run in
      AttentionSegment(
        rows: run.rows, firstPosition: run.firstPosition, keys: sequences[run.sequence]?.keys[layer] ?? [],
        values: sequences[run.sequence]?.values[layer] ?? [])
    }
  }

  // MARK: Bytes

  /// Bytes of one page.
  private var pageBytes: Int { KVPageLayout.byteCount(headDimension: shape.headDimension, type: type) }

  /// Bytes allocated for keys and values.
  public var byteCount: Int {
    sequences.values.reduce(0) { total, sequence in
      total + (sequence.keys + sequence.values).joined().reduce(0) { $0 + $1.count } * pageBytes
    }
  }

  /// Bytes that the same sequences take where every unit stores its keys and values.
  public var fullByteCount: Int {
    sequences.values.reduce(0) {
      $0 + KVPageLayout.pageCount(length: $1.length) * layerCount * shape.kvHeads * 2 * pageBytes
    }
  }
}
