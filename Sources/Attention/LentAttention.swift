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
      keys: store.keyPages(runs, layer: index.layer, head: group))
    lender.tiles = isKeeping ? kept[index]?.tiles : nil
    return lender
  }
}

extension KVStore {
  /// Stores from now on what the units of the borrowing model need for a plan, and no more.
  ///
  /// - Precondition: every sequence is empty, or the plan has no near window.
  public func adopt(_ plan: AttentionPlan) {
    for (layer, group) in plan.mappedUnits {
      guard case .mapped(let near, let far) = plan.units[layer][group] else { continue }
      if let near {
        keepNear(near, layer: layer, head: group, dropsValues: far == .nothing)
      } else {
        dropKeys(layer: layer, head: group)
      }
    }
  }

  /// Stores from now on what a lending model needs for a plan: nothing of layers past those in use, and in the last one
  /// only the KV heads in use, because no later layer needs its output.
  public func lend(for plan: AttentionPlan) {
    dropLayers(from: plan.lenderDepth)
    let heads = plan.lentHeads
    guard let last = heads.last?.layer else { return }
    let used = Set(heads.filter { $0.layer == last }.map { $0.head / shape.groupSize })
    for head in 0..<shape.kvHeads where !used.contains(head) { dropUnit(layer: last, head: head) }
  }
}

/// Borrowed attention of the large model by a plan: what is lent, pass after pass.
public struct Borrowing<B: Backend> {
  /// Where each unit takes its attention from.
  public let plan: AttentionPlan
  /// The small model's attention; `nil` where the plan uses no small head.
  public let lent: LentAttention<B>?
  /// The large model's own, of the layers whose rows others use; `nil` where there are none.
  public let shared: LentAttention<B>?
  /// Room for the products of one layer, see `BorrowRequest`.
  public let products: B.Tensor?

  private let groupSize: Int

  /// - Parameters:
  ///   - plan: a plan that fits both models.
  ///   - large: the cache of the model that borrows.
  ///   - small: the cache of the model that lends; `nil` where the plan uses no small head.
  ///   - rowCapacity: rows of the largest pass.
  public init(
    _ plan: AttentionPlan, large: KVStore<B>, small: KVStore<B>?, rowCapacity: Int
  ) throws(ComputeError) {
    try self.init(
      plan, large: large, lent: Self.record(of: plan.lentHeads, in: small, rowCapacity: rowCapacity),
      rowCapacity: rowCapacity)
  }

  /// Borrows from a record that several plans use: of a pass of the small model over the same rows, all the layers that
  /// the plan uses.
  package init(
    _ plan: AttentionPlan, large: KVStore<B>, lent: LentAttention<B>?, rowCapacity: Int
  ) throws(ComputeError) {
    self.plan = plan
    self.lent = lent
    groupSize = large.shape.groupSize
    shared = try Self.record(of: plan.sharedHeads(groupSize: groupSize), in: large, rowCapacity: rowCapacity)
    let most =
      plan.units.indices.map { layer in
        plan.loans(layer: layer, groupSize: large.shape.groupSize).reduce(0) { $0 + $1.borrowers.count }
      }.max() ?? 0
    products =
      try most == 0
      ? nil : large.backend.makeTensor(rows: rowCapacity, columns: most * large.shape.headDimension)
  }

  private static func record(
    of heads: [HeadIndex], in store: KVStore<B>?, rowCapacity: Int
  ) throws(ComputeError) -> LentAttention<B>? {
    guard let store, !heads.isEmpty else { return nil }
    return try LentAttention(
      backend: store.backend, store: store, layers: heads.map(\.layer), rowCapacity: rowCapacity)
  }

  /// Forgets the pass before, and has few rows, as in decode, kept while they are computed.
  public func beginPass(runs: [SequenceRows]) throws(ComputeError) {
    lent?.truncate()
    shared?.truncate()
    guard runs.allSatisfy({ $0.rows.count <= AttentionTiles.mostRows }) else { return }
    try lent?.keepRows(of: plan.lentHeads, runs: runs)
    try shared?.keepRows(of: plan.sharedHeads(groupSize: groupSize), runs: runs)
  }

  /// The loans of one layer of the large model.
  public func loans(layer: Int, runs: [SequenceRows]) -> [Loan<B>] {
    plan.loans(layer: layer, groupSize: groupSize).map { loan in
      switch loan.lender {
      case .small(let head):
        guard let lent else { preconditionFailure("the plan needs a small model's pass") }
        return Loan(lender: lent.lender(head, runs: runs), borrowers: loan.borrowers)
      case .large(let head):
        guard let shared else { preconditionFailure("the plan needs a record of layer \(head.layer)") }
        return Loan(lender: shared.lender(head, runs: runs), borrowers: loan.borrowers)
      }
    }
  }
}
