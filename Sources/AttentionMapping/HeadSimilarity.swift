// Compares the attention maps of two models' heads over the same rows (IAM §3.1, arXiv 2507.11953). Sums of products
// of all pairs are one matrix product of the backend; distances are taken pair by pair on all cores.

import KindredAttention
import KindredCompute
import KindredKVStore

/// Compares heads of a large model with every head of a small one over the same tokens.
package struct HeadSimilarity<B: Backend> {
  let backend: B
  let measure: SimilarityMeasure

  package init(_ measure: SimilarityMeasure, backend: B) {
    self.measure = measure
    self.backend = backend
  }

  /// The sums for all heads of the listed layers with all small heads, over the rows of one recorded pass.
  ///
  /// - Parameters:
  ///   - large: the large model's attention, the listed layers recorded.
  ///   - layers: its layers.
  ///   - small: the small model's attention, all layers recorded.
  ///   - layerCount: layers of the small model.
  ///   - runs: the rows in each model's cache.
  package func sums(
    of large: LentAttention<B>, layers: [Int], with small: LentAttention<B>, layerCount: Int,
    runs: (large: SequenceRows, small: SequenceRows)
  ) throws -> SimilaritySums {
    let heads = large.shape.queryHeads
    let candidates = try Maps(of: small, layers: Array(0..<layerCount), run: runs.small, backend: backend)
    var sums = SimilaritySums(measure: measure, largeCount: layers.count * heads, smallCount: candidates.count)
    sums.entries = candidates.entries
    sums.small = candidates.moments
    guard !layers.isEmpty else { return sums }
    let compare = try comparison(with: candidates, rows: heads)
    for (index, layer) in layers.enumerated() {
      let maps = try Maps(of: large, layers: [layer], run: runs.large, backend: backend)
      let first = index * heads
      sums.large.replaceSubrange(first..<first + heads, with: maps.moments)
      sums.pairs.replaceSubrange(first * candidates.count..<(first + heads) * candidates.count, with: compare(maps))
    }
    return sums
  }

  /// What gives, for `rows` maps, the sum that the measure needs of each pair with a candidate, `[rows][candidates]`.
  private func comparison(with candidates: Maps, rows: Int) throws -> (Maps) -> [Double] {
    switch measure {
    case .minkowski1, .minkowski2:
      let pool = ThreadPool(threadCount: backend.configuration.threads)
      return { distances($0, candidates, pool: pool) }
    case .cosine, .cosineNorm, .pearson:
      let matrix = try candidates.values.withUnsafeBytes { bytes in
        try backend.makeMatrix(type: .f32, rows: candidates.count, columns: candidates.width, bytes: bytes)
      }
      let input = try backend.makeTensor(rows: rows, columns: candidates.width)
      let prepared = try backend.makeActivations(rows: rows, columns: candidates.width)
      let output = try backend.makeTensor(rows: rows, columns: candidates.count)
      return { maps in
        backend.write(maps.values, to: input)
        backend.prepare(input, rows: rows, into: prepared)
        backend.multiply(prepared, rows: rows, [Product(matrix, into: output)])
        return backend.read(output, rows: 0..<rows).map(Double.init)
      }
    }
  }

  /// Σ |a − b| or Σ (a − b)² of each pair.
  private func distances(_ maps: Maps, _ candidates: Maps, pool: ThreadPool) -> [Double] {
    Array(unsafeUninitializedCapacity: maps.count * candidates.count) { result, count in
      pool.run(candidates.count) { _, candidate in
        candidates.withMap(candidate) { other in
          for map in 0..<maps.count {
            result[map * candidates.count + candidate] = maps.withMap(map) {
              measure == .minkowski1 ? absoluteDifference($0, other) : squaredDifference($0, other)
            }
          }
        }
      }
      count = maps.count * candidates.count
    }
  }
}

/// The post-softmax maps of some heads over some rows: each as its entries up to the diagonal, row after row, with
/// zeros after the last one.
private struct Maps {
  /// Entries of a map are padded to a multiple of it, for the backend's products and for vectors.
  static let alignment = 64
  let count: Int
  let entries: Int
  let width: Int
  /// `[count, width]`.
  private(set) var values: [Float]
  private(set) var moments: [SimilaritySums.Moments] = []

  init<B: Backend>(of lent: LentAttention<B>, layers: [Int], run: SequenceRows, backend: B) throws {
    let heads = layers.flatMap { layer in (0..<lent.shape.queryHeads).map { HeadIndex(layer: layer, head: $0) } }
    count = heads.count
    entries = (1...run.rows.count).reduce(0) { $0 + run.firstPosition + $1 }
    width = (entries + Self.alignment - 1) / Self.alignment * Self.alignment
    values = Array(repeating: 0, count: count * width)
    let tileRows = KVPageLayout.pageCount(length: run.firstPosition + run.rows.count) * run.rows.count
    for (index, head) in heads.enumerated() {
      let tiles = backend.read(try lent.rows(of: head, runs: [run]), rows: 0..<tileRows)
      values.withUnsafeMutableBufferPointer { values in
        moments.append(Self.pack(tiles, run: run, into: values[index * width..<index * width + entries]))
      }
    }
  }

  /// Copies the entries up to the diagonal out of tiles (`AttentionTiles`).
  private static func pack(
    _ tiles: [Float], run: SequenceRows, into entries: Slice<UnsafeMutableBufferPointer<Float>>
  ) -> SimilaritySums.Moments {
    let columns = KVPageLayout.positions
    var moments = SimilaritySums.Moments()
    var next = entries.startIndex
    for row in 0..<run.rows.count {
      for first in stride(from: 0, through: run.firstPosition + row, by: columns) {
        let start = (first / columns * run.rows.count + row) * columns
        for element in tiles[start..<start + min(columns, run.firstPosition + row + 1 - first)] {
          entries.base[next] = element
          next += 1
          moments.sum += Double(element)
          moments.squares += Double(element) * Double(element)
        }
      }
    }
    return moments
  }

  func withMap<Result>(_ index: Int, _ body: (UnsafeBufferPointer<Float>) -> Result) -> Result {
    values.withUnsafeBufferPointer { body(UnsafeBufferPointer(rebasing: $0[index * width..<(index + 1) * width])) }
  }
}

/// Elements that are summed in single precision before they are added to a sum in double.
private let blockElements = 4096

/// Σ |a − b| of two vectors whose length is a multiple of 16.
private func absoluteDifference(_ first: UnsafeBufferPointer<Float>, _ second: UnsafeBufferPointer<Float>) -> Double {
  let magnitude = SIMD16<UInt32>(repeating: 0x7FFF_FFFF)
  return sum(first, second) { SIMD16<Float>(bitPattern: ($0 - $1).bitPattern & magnitude) }
}

/// Σ (a − b)² of two vectors whose length is a multiple of 16.
private func squaredDifference(_ first: UnsafeBufferPointer<Float>, _ second: UnsafeBufferPointer<Float>) -> Double {
  sum(first, second) { ($0 - $1) * ($0 - $1) }
}

@inline(__always)
private func sum(
  _ first: UnsafeBufferPointer<Float>, _ second: UnsafeBufferPointer<Float>,
  _ term: (SIMD16<Float>, SIMD16<Float>) -> SIMD16<Float>
) -> Double {
  let (first, second, count) = (UnsafeRawBufferPointer(first), UnsafeRawBufferPointer(second), first.count)
  var total = 0.0
  for start in stride(from: 0, to: count, by: blockElements) {
    var block = SIMD16<Float>.zero
    for index in stride(from: start, to: min(start + blockElements, count), by: 16) {
      let offset = index * MemoryLayout<Float>.stride
      block += term(
        first.loadUnaligned(fromByteOffset: offset, as: SIMD16<Float>.self),
        second.loadUnaligned(fromByteOffset: offset, as: SIMD16<Float>.self))
    }
    total += Double(block.sum())
  }
  return total
}

extension SIMD16<Float> {
  fileprivate var bitPattern: SIMD16<UInt32> { unsafeBitCast(self, to: SIMD16<UInt32>.self) }

  fileprivate init(bitPattern: SIMD16<UInt32>) { self = unsafeBitCast(bitPattern, to: SIMD16<Float>.self) }
}
