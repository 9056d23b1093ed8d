// Attention of Qwen2.5-Coder 1.5B's heads over a cache of f16, own and borrowed from the 0.5B's.

import Benchmark
import KindredCompute

private let large = AttentionShape(queryHeads: 12, kvHeads: 2, headDimension: 128)
private let small = AttentionShape(queryHeads: 14, kvHeads: 2, headDimension: 64)
private let depth = 4096
private let chunk = 512
/// (row, position) pairs of the last chunk before `depth`.
private let pairs = Double((depth - chunk + 1...depth).reduce(0, +))

func registerAttention() {
  register("attention, \(chunk) rows to depth \(depth)", metrics: BenchmarkMetric.arithmetic) {
    let layer = try Layer(CPUBackend(), large, rows: chunk)
    return Workload(
      backend: layer.backend, operations: 4 * pairs * Double(large.queryHeads * large.headDimension), body: layer.attend
    )
  }
  register("attention, borrowed, \(chunk) rows to depth \(depth)", metrics: BenchmarkMetric.arithmetic) {
    let backend = try CPUBackend()
    let lender = try Layer(backend, small, rows: chunk)
    let layer = try Layer(backend, large, rows: chunk)
    lender.attend()
    // Six lent heads, each for one query head of either KV head.
    let loans = (0..<6).map { head in
      Loan<CPUBackend>(
        lender: LentHead(
          query: lender.query, logSumExp: lender.logSumExp, shape: small, type: .f16, head: head,
          keys: [lender.segment.keys[head / small.groupSize]]),
        borrowers: [
          Borrower(group: 0, queryHeads: [head], weights: [1]),
          Borrower(group: 1, queryHeads: [large.groupSize + head], weights: [1]),
        ])
    }
    let request = BorrowRequest<CPUBackend>(
      loans: loans, groups: [0, 1], shape: large, type: .f16, output: layer.output)
    return Workload(
      backend: backend,
      operations: 2 * pairs * Double(6 * small.headDimension + large.queryHeads * large.headDimension),
      body: { backend.attend(request, segments: [layer.segment]) })
  }
  register("attention, 1 row at depth \(depth)", metrics: BenchmarkMetric.memory) {
    let backend = try CPUBackend()
    // As many layers as fill what the ceiling reads; no cache holds them from one token to the next.
    let bytes =
      2 * KVPageLayout.pageCount(length: depth) * large.kvHeads
      * KVPageLayout.byteCount(headDimension: large.headDimension, type: .f16)
    let layers = try (0..<Ceilings.readBytes / bytes).map { _ in try Layer(backend, large, rows: 1) }
    return Workload(
      backend: backend, bytes: Double(layers.count * bytes), body: { for layer in layers { layer.attend() } })
  }
}

/// One layer's cache of `depth` positions, and the queries of the last rows.
private struct Layer {
  let backend: CPUBackend
  let shape: AttentionShape
  let query: CPUBackend.Tensor
  let output: CPUBackend.Tensor
  let logSumExp: CPUBackend.Tensor
  let segment: AttentionSegment<CPUBackend.Page>

  init(_ backend: CPUBackend, _ shape: AttentionShape, rows: Int) throws {
    self.backend = backend
    self.shape = shape
    let columns = shape.queryHeads * shape.headDimension
    query = try backend.random(rows: rows, columns: columns)
    output = try backend.makeTensor(rows: rows, columns: columns)
    logSumExp = try backend.makeTensor(rows: rows, columns: shape.queryHeads)
    func pages() throws -> [[CPUBackend.Page]] {
      try (0..<shape.kvHeads).map { _ in
        try (0..<KVPageLayout.pageCount(length: depth)).map { _ in
          try backend.makePage(headDimension: shape.headDimension, type: .f16)
        }
      }
    }
    let cache = AttentionSegment(rows: 0..<chunk, firstPosition: 0, keys: try pages(), values: try pages())
    let values = try backend.random(rows: chunk, columns: shape.kvHeads * shape.headDimension)
    for first in stride(from: 0, to: depth, by: chunk) {
      var part = cache
      part.firstPosition = first
      backend.store(values, as: .keys, in: [part], type: .f16)
      backend.store(values, as: .values, in: [part], type: .f16)
    }
    segment = AttentionSegment(
      rows: 0..<rows, firstPosition: depth - rows, keys: cache.keys, values: cache.values)
  }

  func attend() {
    backend.attend(
      AttentionRequest(
        query: query, shape: shape, type: .f16, groups: Array(0..<shape.kvHeads), output: output,
        logSumExp: logSumExp),
      segments: [segment])
  }
}
