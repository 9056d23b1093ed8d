// What a small model's pass leaves for the large one (IAM, arXiv 2507.11953): for each layer in use the rotated
// queries and the log-sum-exp of each row, beside the keys that its cache holds anyway. From these any tile of a
// post-softmax map can be recomputed; no N × N map is stored.

import KindredCompute
import KindredKVStore

/// The record of one model's attention over the rows of a pass, or of several passes over one sequence.
public final class LentAttention<B: Backend> {
  /// The heads of the lending model.
  public let shape: AttentionShape
  /// Rows recorded.
  public private(set) var rowCount = 0

  private let backend: B
  private let store: KVStore<B>
  private let rowCapacity: Int
  /// By layer: rotated queries `[rows, h · d]` and log-sum-exp `[rows, h]`.
  private var records: [Int: (query: B.Tensor, logSumExp: B.Tensor)] = [:]
  /// Rows of the present pass that are kept, in tensors that serve one pass after another.
  private var kept: [HeadIndex: (tiles: B.Tensor, rows: Int)] = [:]
  /// Whether the present pass keeps rows.
  private var isKeeping = false

  /// - Parameters:
  ///   - backend: where the record is kept.
  ///   - store: the lending model's cache.
  ///   - layers: the layers whose attention is recorded.
  ///   - rowCapacity: rows that fit.
  public init(backend: B, store: KVStore<B>, layers: some Swift.Sequence<Int>, rowCapacity: Int) throws(ComputeError) {
    self.backend = backend
    self.store = store
    self.rowCapacity = rowCapacity
    shape = store.shape
    for layer in Set(layers) {
      records[layer] = (
        try backend.makeTensor(rows: rowCapacity, columns: shape.queryHeads * shape.headDimension),
        try backend.makeTensor(rows: rowCapacity, columns: shape.queryHeads)
      )
    }
  }

  /// Whether the pass should record this layer.
  public func records(layer: Int) -> Bool { records[layer] != nil }

  /// Forgets the rows from `count` on; all of them, by default, so that the next pass starts a new record.
  public func truncate(to count: Int = 0) {
    rowCount = min(rowCount, count)
    isKeeping = false
  }

  /// Notes the queries and row statistics of one layer, from row ``rowCount`` on.
  public func record(layer: Int, query: B.Tensor, logSumExp: B.Tensor, rows: Int) {
    guard let record = records[layer] else { return }
    precondition(rowCount + rows <= rowCapacity, "more rows lent than there is room for")
    backend.gather(0..<rows, of: query, into: record.query, at: rowCount)
    backend.gather(0..<rows, of: logSumExp, into: record.logSumExp, at: rowCount)
  }

  /// Ends a pass of `rows` rows.
  public func finishPass(rows: Int) { rowCount += rows }

  /// Has the next pass keep the post-softmax rows of the listed heads while it computes them. Worth it where rows are
  /// few, as in decode: a borrowing layer then only weighs its values.
  ///
  /// - Precondition: no run has more than ``AttentionTiles/mostRows`` rows, and its positions are in the store.
  public func keepRows(of heads: [HeadIndex], runs: [SequenceRows]) throws(ComputeError) {
    let needed = AttentionTiles.rowCount(runs.map { ($0.rows.count, $0.firstPosition) })
    for head in heads {
      if let found = kept[head], found.rows >= needed { continue }
      // Room for some steps more.
      let rows = needed + needed / 8
      kept[head] = (try backend.makeTensor(rows: rows, columns: KVPageLayout.positions), rows)
    }
    isKeeping = true
  }

  /// The heads of a layer whose rows the present pass keeps, and where.
  public func keptHeads(layer: Int) -> [(head: Int, tiles: B.Tensor)] {
    guard isKeeping else { return [] }
    return kept.filter { $0.key.layer == layer }.map { ($0.key.head, $0.value.tiles) }
  }

  /// One head's post-softmax rows as tiles (`AttentionTiles`).
  public func rows(of head: HeadIndex, runs: [SequenceRows]) throws(ComputeError) -> B.Tensor {
    try backend.probabilities(of: lender(head, runs: runs), segments: store.segments(runs, layer: head.layer))
  }

  /// One head as the backend takes it, for rows of the last pass.
  public func lender(_ index: HeadIndex, runs: [SequenceRows]) -> LentHead<B> {
    guard let record = records[index.layer] else { preconditionFailure("layer \(index.layer) was not recorded") }
    let group = index.head / shape.groupSize
    var lender = LentHead<B>(
      query: record.query, logSumExp: record.logSumExp, shape: shape, type: store.type, head: index.head,
      keys: store.segments(runs, layer: index.layer).map { $0.keys[group] })
    lender.tiles = isKeeping ? kept[index]?.tiles : nil
    return lender
  }
}

/// Borrowed attention for one pass of the large model.
public struct Borrowing<B: Backend> {
  /// Which units borrow, and from which heads.
  public var plan: AttentionPlan
  /// The small model's pass over the same rows.
  public var lent: LentAttention<B>

  public init(plan: AttentionPlan, lent: LentAttention<B>) {
    self.plan = plan
    self.lent = lent
  }

  /// The loans of one layer of the large model.
  public func loans(layer: Int, runs: [SequenceRows]) -> [Loan<B>] {
    plan.loans(layer: layer).map { Loan(lender: lent.lender($0.lender, runs: runs), borrowers: $0.borrowers) }
  }
}
