// How alike the attention maps of two models' heads are: S(i, j) = ⟨A_i, A'_j⟩ / (‖A_i‖ ‖A'_j‖) over the lower
// triangle (IAM §3.1, arXiv 2507.11953). All pairs at once are one matrix product.

import KindredAttention
import KindredCompute
import KindredKVStore

/// Compares heads of a large model with every head of a small one over the same tokens.
struct HeadSimilarity<B: Backend> {
  let backend: B
  /// The small model's attention, all layers recorded.
  let candidates: LentAttention<B>
  /// Layers of the small model.
  let layerCount: Int
  let runs: (large: SequenceRows, small: SequenceRows)

  /// For each listed layer, the most alike small head of each query head; the first one among equals.
  func bestHeads(of large: LentAttention<B>, layers: [Int]) throws -> [Int: [HeadIndex]] {
    let heads = candidates.shape.queryHeads
    return try cosines(of: large, layers: layers).mapValues { rows in
      rows.map { row in
        let best = row.indices.max { row[$0] < row[$1] || (row[$0] == row[$1] && $0 > $1) } ?? 0
        return HeadIndex(layer: best / heads, head: best % heads)
      }
    }
  }

  /// For each listed layer, S of each of its query heads with all small heads, `[H][l · h]`.
  func cosines(of large: LentAttention<B>, layers: [Int]) throws -> [Int: [[Float]]] {
    guard !layers.isEmpty else { return [:] }
    // Tiles past a row's own position are 0 and both models' tiles are laid out alike, so whole tiles can stand for
    // the lower triangle.
    let small = try (0..<layerCount).flatMap { try maps(of: candidates, layer: $0, run: runs.small) }
    let elements = small[0].count
    let matrix = try small.flatMap(\.self).withUnsafeBytes { bytes in
      try backend.makeMatrix(type: .f32, rows: small.count, columns: elements, bytes: bytes)
    }
    let smallNorms = small.map(norm)
    let queryHeads = large.shape.queryHeads
    let input = try backend.makeTensor(rows: queryHeads, columns: elements)
    let prepared = try backend.makeActivations(rows: queryHeads, columns: elements)
    let output = try backend.makeTensor(rows: queryHeads, columns: small.count)
    var result: [Int: [[Float]]] = [:]
    for layer in layers {
      let maps = try maps(of: large, layer: layer, run: runs.large)
      backend.write(maps.flatMap(\.self), to: input)
      backend.prepare(input, rows: queryHeads, into: prepared)
      backend.multiply(prepared, rows: queryHeads, [Product(matrix, into: output)])
      let products = backend.read(output, rows: 0..<queryHeads)
      result[layer] = maps.enumerated().map { head, map in
        let length = norm(map)
        return smallNorms.indices.map { products[head * small.count + $0] / (length * smallNorms[$0]) }
      }
    }
    return result
  }

  /// The post-softmax maps of a layer's heads, each as one run of tiles.
  private func maps(of lent: LentAttention<B>, layer: Int, run: SequenceRows) throws -> [[Float]] {
    try (0..<lent.shape.queryHeads).map { head in
      let tiles = try lent.rows(of: HeadIndex(layer: layer, head: head), runs: [run])
      let rows = KVPageLayout.pageCount(length: run.firstPosition + run.rows.count) * run.rows.count
      return backend.read(tiles, rows: 0..<rows)
    }
  }

  /// The Frobenius norm.
  private func norm(_ map: [Float]) -> Float {
    Float(map.reduce(0.0) { $0 + Double($1) * Double($1) }.squareRoot())
  }
}
