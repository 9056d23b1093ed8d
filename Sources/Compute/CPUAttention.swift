// Attention on the processor: tiles of queries against pages of 64 positions.
//
// Own attention is the online softmax of FlashAttention (Dao et al. 2022) over pages in rising order. Borrowed
// attention (IAM, arXiv 2507.11953) takes tiles that are normalised already and needs only the product with V.
// Page borders lie at fixed positions and each output is summed in one order, so results do not depend on how rows
// are grouped. Slow twins that materialise whole maps are in `AttentionTests`. Many rows of a sequence go through matrix
// tiles where there are any: CPUTileAttention.swift.

import CKindredKernels
import Foundation

extension CPUBackend {
  /// Elements of one row of a tile.
  private static let tileWidth = KVPageLayout.positions
  /// Queries that go through the pages together: their logits and outputs stay in the second-level cache.
  private static let queriesPerTile = 64

  public func store(
    _ tensor: Tensor, as part: KVPart, in segments: [AttentionSegment<Page>], type: KVType
  ) {
    let store = part == .keys ? kernels.store_key : kernels.store_value
    for segment in segments {
      let heads = part == .keys ? segment.keys : segment.values
      let dimension = tensor.columns / heads.count
      pool.run((segment.rows.count + 31) / 32) { _, block in
        for offset in block * 32..<min(block * 32 + 32, segment.rows.count) {
          let (page, slot) = (segment.firstPosition + offset).quotientAndRemainder(dividingBy: Self.tileWidth)
          for (head, pages) in heads.enumerated() where !pages.isEmpty {
            store?(
              type.kernelType, tensor[row: segment.rows.lowerBound + offset] + head * dimension, dimension, slot,
              pages[page].memory.pointer)
          }
        }
      }
    }
  }

  // MARK: Own attention

  public func attend(_ request: AttentionRequest<CPUBackend>, segments: [AttentionSegment<Page>]) {
    let isTiled = { self.isTiled($0, type: request.type, dimension: request.shape.headDimension) }
    let tiled = segments.filter(isTiled)
    if !tiled.isEmpty { attendInTiles(request, segments: tiled) }
    if tiled.count == segments.count { return }
    let segments = segments.filter { !isTiled($0) }
    let rowsPerBlock = max(1, Self.queriesPerTile / request.shape.groupSize)
    let blocks = Self.blocks(of: segments, rows: rowsPerBlock)
    pool.run(blocks.count * request.groups.count) { _, item in
      let block = blocks[item / request.groups.count]
      self.attend(
        request, segment: segments[block.segment], rows: block.rows,
        group: request.groups[item % request.groups.count])
    }
  }

  /// A run of rows of one segment, counted from the segment's first row.
  struct Block {
    var segment: Int
    var rows: Range<Int>
  }

  /// Cuts segments into blocks of rows, the longest work first so that the threads finish together.
  static func blocks(of segments: [AttentionSegment<Page>], rows: Int) -> [Block] {
    segments.indices.flatMap { index in
      stride(from: 0, to: segments[index].rows.count, by: rows).reversed().map { start in
        Block(segment: index, rows: start..<min(start + rows, segments[index].rows.count))
      }
    }
  }

  private func attend(
    _ request: AttentionRequest<CPUBackend>, segment: AttentionSegment<Page>, rows: Range<Int>, group: Int
  ) {
    let shape = request.shape
    let dimension = shape.headDimension
    let queries = rows.count * shape.groupSize
    let width = Self.tileWidth
    // [queries, D] queries, [queries, D] outputs, [queries, 64] logits, [queries] maxima, [queries] sums
    let floats = queries * (2 * dimension + width + 2)
    withUnsafeTemporaryAllocation(byteCount: floats * 4, alignment: 64) { memory in
      let query = memory.baseAddress!.assumingMemoryBound(to: Float.self)
      let output = query + queries * dimension
      let logits = output + queries * dimension
      let maximum = logits + queries * width
      let sum = maximum + queries
      output.update(repeating: 0, count: queries * dimension)
      maximum.update(repeating: -.infinity, count: queries)
      sum.update(repeating: 0, count: queries)
      for (index, row) in rows.enumerated() {
        (query + index * shape.groupSize * dimension).update(
          from: request.query[row: segment.rows.lowerBound + row] + group * shape.groupSize * dimension,
          count: shape.groupSize * dimension)
      }
      let end = segment.firstPosition + rows.upperBound  // one past the last position seen
      for page in 0..<KVPageLayout.pageCount(length: end) {
        let count = min(width, end - page * width)
        kernels.scores(
          request.type.kernelType, query, dimension, queries, dimension,
          segment.keys[group][page].memory.pointer, count, shape.scale, logits)
        for index in 0..<queries {
          let position = segment.firstPosition + rows.lowerBound + index / shape.groupSize
          let valid = min(width, position - page * width + 1)
          guard valid > 0 else {
            (logits + index * width).update(repeating: 0, count: width)
            continue
          }
          let factor = kernels.softmax_step(logits + index * width, valid, maximum + index, sum + index)
          if factor != 1 { kernels.scale(output + index * dimension, dimension, factor) }
        }
        kernels.accumulate(
          request.type.kernelType, logits, queries, segment.values[group][page].memory.pointer, count, dimension,
          output, dimension)
      }
      for index in 0..<queries {
        let row = segment.rows.lowerBound + rows.lowerBound + index / shape.groupSize
        let head = group * shape.groupSize + index % shape.groupSize
        kernels.scale(output + index * dimension, dimension, 1 / sum[index])
        (request.output[row: row] + head * dimension).update(from: output + index * dimension, count: dimension)
        request.logSumExp?[row: row][head] = maximum[index] + log(sum[index])
      }
    }
  }

  // MARK: Lent rows

  public func probabilities(
    of head: LentHead<CPUBackend>, segments: [AttentionSegment<Page>]
  ) throws(ComputeError) -> Tensor {
    let offsets = AttentionTiles.rowOffsets(segments)
    let tiles = try Tensor(rows: offsets[segments.count], columns: Self.tileWidth)
    let blocks = Self.blocks(of: segments, rows: Self.queriesPerTile)
    pool.run(blocks.count) { _, item in
      let block = blocks[item]
      let segment = segments[block.segment]
      let end = segment.firstPosition + block.rows.upperBound
      for page in 0..<KVPageLayout.pageCount(length: end) {
        let start = offsets[block.segment] + page * segment.rows.count + block.rows.lowerBound
        self.tile(of: head, block: block, segment: segment, page: page, into: tiles[row: start])
      }
    }
    return tiles
  }

  /// Recomputes one tile `[rows, 64]` of a lent head's post-softmax map.
  private func tile(
    of head: LentHead<CPUBackend>, block: Block, segment: AttentionSegment<Page>, page: Int,
    into tile: UnsafeMutablePointer<Float>
  ) {
    let dimension = head.shape.headDimension
    let width = Self.tileWidth
    let firstRow = segment.rows.lowerBound + block.rows.lowerBound
    let end = segment.firstPosition + block.rows.upperBound
    kernels.scores(
      head.type.kernelType, head.query[row: firstRow] + head.head * dimension, head.query.columns, block.rows.count,
      dimension, head.keys[block.segment][page].memory.pointer, min(width, end - page * width), head.shape.scale, tile)
    for index in 0..<block.rows.count {
      let position = segment.firstPosition + block.rows.lowerBound + index
      let valid = min(width, position - page * width + 1)
      guard valid > 0 else {
        (tile + index * width).update(repeating: 0, count: width)
        continue
      }
      kernels.exp_shifted(tile + index * width, valid, head.logSumExp[row: firstRow + index][head.head])
    }
  }

  // MARK: Borrowed attention

  public func attend(_ request: BorrowRequest<CPUBackend>, segments: [AttentionSegment<Page>]) {
    if borrowInTiles(request, segments: segments) { return }
    // With kept rows nothing is shared among KV heads, so each is a piece of work of its own; without, a tile is
    // computed once for all KV heads that use it.
    let kept = request.loans.allSatisfy { $0.lender.tiles != nil }
    let parts = kept ? request.splitByGroup() : [request]
    let blocks = Self.blocks(of: segments, rows: Self.queriesPerTile / 2)
    let offsets = AttentionTiles.rowOffsets(segments)
    pool.run(blocks.count * parts.count) { _, item in
      let block = blocks[item / parts.count]
      self.borrow(
        parts[item % parts.count], block: block, segment: segments[block.segment],
        tileStart: offsets[block.segment] + block.rows.lowerBound)
    }
  }

  /// Adds up, page by page, each lent tile times the values of the KV heads that borrow it.
  private func borrow(
    _ request: BorrowRequest<CPUBackend>, block: Block, segment: AttentionSegment<Page>, tileStart: Int
  ) {
    let rows = block.rows.count
    let width = Self.tileWidth
    let dimension = request.shape.headDimension
    let borrowers = request.loans.flatMap(\.borrowers)
    // [rows, 64] a tile; [borrowers, rows, D] sums
    let floats = rows * (width + borrowers.count * dimension)
    withUnsafeTemporaryAllocation(byteCount: floats * 4, alignment: 64) { memory in
      let scratch = memory.baseAddress!.assumingMemoryBound(to: Float.self)
      let sums = scratch + rows * width
      sums.update(repeating: 0, count: borrowers.count * rows * dimension)
      let end = segment.firstPosition + block.rows.upperBound
      for page in 0..<KVPageLayout.pageCount(length: end) {
        var sum = sums
        for loan in request.loans {
          var tile = scratch
          if let kept = loan.lender.tiles {
            tile = kept[row: tileStart + page * segment.rows.count]
          } else {
            self.tile(of: loan.lender, block: block, segment: segment, page: page, into: tile)
          }
          for borrower in loan.borrowers {
            kernels.accumulate(
              request.type.kernelType, tile, rows, segment.values[borrower.group][page].memory.pointer,
              min(width, end - page * width), dimension, sum, dimension)
            sum += rows * dimension
          }
        }
      }
      for (index, borrower) in borrowers.enumerated() {
        for row in 0..<rows {
          let target = request.output[row: segment.rows.lowerBound + block.rows.lowerBound + row]
          for head in borrower.queryHeads {
            (target + head * dimension).update(from: sums + (index * rows + row) * dimension, count: dimension)
          }
        }
      }
    }
  }
}
