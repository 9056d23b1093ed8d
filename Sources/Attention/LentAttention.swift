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
  /// Rows kept by ``keepRows(of:)``.
  private var kept: [HeadIndex: B.Tensor] = [:]

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
    kept = [:]
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

  /// Computes and keeps the post-softmax rows of the listed heads. Worth it where rows are few, as in decode: a
  /// borrowing layer then only weighs its values.
  public func keepRows(of heads: [HeadIndex], runs: [SequenceRows]) throws(ComputeError) {
    for head in heads { kept[head] = try rows(of: head, runs: runs) }
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
    lender.tiles = kept[index]
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

/// Borrowed attention for one pass of the large model.
public struct Borrowing<B: Backend> {
  /// Where each unit takes its attention from.
  public var plan: AttentionPlan
  /// The small model's pass over the same rows; `nil` where the plan uses no small head.
  public var lent: LentAttention<B>?
  /// The record of this pass itself, of the layers whose rows others use; `nil` where there are none.
  public var shared: LentAttention<B>?

  public init(plan: AttentionPlan, lent: LentAttention<B>?, shared: LentAttention<B>? = nil) {
    self.plan = plan
    self.lent = lent
    self.shared = shared
  }

  /// The loans of one layer of the large model.
  public func loans(layer: Int, groupSize: Int, runs: [SequenceRows]) -> [Loan<B>] {
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
