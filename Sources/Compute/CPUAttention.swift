// Attention on the processor: tiles of queries against pages of 64 positions.
//
// Own attention is the online softmax of FlashAttention (Dao et al. 2022) over pages in rising order, in stretches that
// are merged like its blocks. Borrowed attention (IAM, arXiv 2507.11953) takes tiles that are normalised already and
// needs only the product with V.
// Page borders lie at fixed positions and each output is summed in one order, so results do not depend on how rows
// are grouped. Slow twins that materialise whole maps are in `AttentionTests`. Many rows of a sequence with a cache of
// half precision go another way where the instruction set has one: CPUTileAttention.swift.

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
    storeNear(tensor, as: part, in: segments, type: type)
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
    var segments = segments
    let isTiled = { self.isTiled($0, type: request.type, shape: request.shape) }
    if segments.contains(where: isTiled) {
      attendInTiles(request, segments: segments.filter(isTiled))
      segments.removeAll(where: isTiled)
    }
    let rowsPerBlock = max(1, Self.queriesPerTile / request.shape.groupSize)
    let blocks = Self.blocks(of: segments, rows: rowsPerBlock)
    let offsets = AttentionTiles.rowOffsets(segments)
    let groups = request.groups
    let pieceCount = blocks.count * groups.count
    let piece = { [segments] (item: Int) in
      let block = blocks[item / groups.count]
      return OwnPiece(
        segment: segments[block.segment], rows: block.rows, group: groups[item % groups.count],
        tileStart: offsets[block.segment])
    }
    guard pieceCount < 2 * pool.threadCount,
      let most = (0..<pieceCount).map({ piece($0).stretchCount }).max(), most > 1
    else {
      return pool.run(pieceCount) { _, item in self.attend(request, piece: piece(item)) }
    }
    let pieces = (0..<pieceCount).map(piece)
    let stretches = pieces.map(\.stretchCount)
    // Too few pieces for the threads to finish together: their stretches are divided, too.
    let queries = rowsPerBlock * request.shape.groupSize
    let floats = Partial.floats(queries: queries, dimension: request.shape.headDimension)
    withUnsafeTemporaryAllocation(byteCount: pieces.count * most * floats * 4, alignment: 64) { memory in
      let first = memory.baseAddress!.assumingMemoryBound(to: Float.self)
      func partial(_ item: Int, _ stretch: Int) -> Partial {
        Partial(
          first + (item * most + stretch) * floats, queries: pieces[item].rows.count * request.shape.groupSize,
          dimension: request.shape.headDimension)
      }
      let starts = stretches.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1) }
      pool.run(starts[pieces.count]) { _, index in
        var item = 0
        while index >= starts[item + 1] { item += 1 }
        let stretch = index - starts[item]
        self.attend(request, piece: pieces[item], stretch: stretch, into: partial(item, stretch))
      }
      for (item, piece) in pieces.enumerated() {
        let total = partial(item, 0)
        for stretch in 1..<stretches[item] { total.merge(partial(item, stretch)) }
        finish(request, piece: piece, total)
      }
      guard !request.kept.isEmpty else { return }
      pool.run(starts[pieces.count]) { _, index in
        var item = 0
        while index >= starts[item + 1] { item += 1 }
        self.exponentiateKept(request, piece: pieces[item], stretch: index - starts[item], partial(item, 0))
      }
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

  /// Rows of one segment with one KV head.
  private struct OwnPiece {
    let segment: AttentionSegment<Page>
    let rows: Range<Int>
    let group: Int
    /// Where the segment's kept tiles start.
    let tileStart: Int

    /// One past the last position seen.
    var end: Int { segment.firstPosition + rows.upperBound }
    var pageCount: Int { KVPageLayout.pageCount(length: end) }
    var stretchCount: Int { (pageCount + CPUBackend.stretchPages - 1) / CPUBackend.stretchPages }
  }

  /// Pages whose softmax is taken together before stretches are merged, so that threads can divide a long context. The
  /// borders lie at fixed positions, and stretches are merged in rising order: results do not depend on who computed
  /// what.
  private static let stretchPages = 8

  /// Attention of some queries over one stretch: weighted sums of values, `[queries, D]`, with the largest logit and the
  /// sum of the weights, `[queries]` each.
  private struct Partial {
    let output: UnsafeMutablePointer<Float>
    let maximum: UnsafeMutablePointer<Float>
    let sum: UnsafeMutablePointer<Float>
    let queries: Int, dimension: Int

    static func floats(queries: Int, dimension: Int) -> Int { queries * (dimension + 2) }

    init(_ memory: UnsafeMutablePointer<Float>, queries: Int, dimension: Int) {
      output = memory
      maximum = memory + queries * dimension
      sum = maximum + queries
      self.queries = queries
      self.dimension = dimension
    }

    func clear() {
      output.update(repeating: 0, count: queries * dimension)
      maximum.update(repeating: -.infinity, count: queries)
      sum.update(repeating: 0, count: queries)
    }

    /// Adds a later stretch. The first one holds position 0, so its sums are never empty.
    func merge(_ other: Partial) {
      for index in 0..<queries {
        let largest = max(maximum[index], other.maximum[index])
        let factor = exp(maximum[index] - largest)
        let otherFactor = exp(other.maximum[index] - largest)
        let row = output + index * dimension
        let otherRow = other.output + index * dimension
        for c in 0..<dimension { row[c] = row[c] * factor + otherRow[c] * otherFactor }
        sum[index] = sum[index] * factor + other.sum[index] * otherFactor
        maximum[index] = largest
      }
    }
  }

  /// All stretches of a piece, one after the other.
  private func attend(_ request: AttentionRequest<CPUBackend>, piece: OwnPiece) {
    let queries = piece.rows.count * request.shape.groupSize
    let dimension = request.shape.headDimension
    let floats = Partial.floats(queries: queries, dimension: dimension)
    withUnsafeTemporaryAllocation(byteCount: 2 * floats * 4, alignment: 64) { memory in
      let first = memory.baseAddress!.assumingMemoryBound(to: Float.self)
      let total = Partial(first, queries: queries, dimension: dimension)
      attend(request, piece: piece, stretch: 0, into: total)
      for stretch in stride(from: 1, to: piece.stretchCount, by: 1) {
        let next = Partial(first + floats, queries: queries, dimension: dimension)
        attend(request, piece: piece, stretch: stretch, into: next)
        total.merge(next)
      }
      finish(request, piece: piece, total)
      guard !request.kept.isEmpty else { return }
      for stretch in 0..<piece.stretchCount { exponentiateKept(request, piece: piece, stretch: stretch, total) }
    }
  }

  /// One stretch of a piece, by the online softmax.
  private func attend(_ request: AttentionRequest<CPUBackend>, piece: OwnPiece, stretch: Int, into part: Partial) {
    let (shape, segment, rows) = (request.shape, piece.segment, piece.rows)
    let dimension = shape.headDimension
    let width = Self.tileWidth
    part.clear()
    // [queries, D] queries, [queries, 64] logits
    withUnsafeTemporaryAllocation(byteCount: part.queries * (dimension + width) * 4, alignment: 64) { memory in
      let query = memory.baseAddress!.assumingMemoryBound(to: Float.self)
      let logits = query + part.queries * dimension
      for (index, row) in rows.enumerated() {
        (query + index * shape.groupSize * dimension).update(
          from: request.query[row: segment.rows.lowerBound + row] + piece.group * shape.groupSize * dimension,
          count: shape.groupSize * dimension)
      }
      let firstPage = stretch * Self.stretchPages
      let pages = firstPage..<min(firstPage + Self.stretchPages, piece.pageCount)
      let kept = keptTiles(request, piece: piece, page: firstPage)
      Self.withPointers(to: segment.keys[piece.group][pages]) { keys in
        Self.withPointers(to: segment.values[piece.group][pages]) { values in
          kept.withUnsafeBufferPointer { kept in
            var call = kindred_attention(
              type: request.type.kernelType, d: dimension, queries: part.queries, heads: shape.groupSize,
              first_position: segment.firstPosition + rows.lowerBound, scale: shape.scale, query: query,
              first_page: firstPage, page_count: pages.count, keys: keys, values: values, logits: logits,
              output: part.output, maximum: part.maximum, sum: part.sum,
              kept: kept.isEmpty ? nil : kept.baseAddress,
              page_stride: segment.rows.count * width)
            kernels.attend(&call)
          }
        }
      }
    }
  }

  /// By query of a piece, where the tile of page `page` is kept; empty where nothing of the piece is.
  private func keptTiles(
    _ request: AttentionRequest<CPUBackend>, piece: OwnPiece, page: Int
  ) -> [UnsafeMutablePointer<Float>?] {
    let heads = request.shape.groupSize
    let own = request.kept.filter { $0.head / heads == piece.group }
    guard !own.isEmpty else { return [] }
    var tiles: [UnsafeMutablePointer<Float>?] = Array(repeating: nil, count: piece.rows.count * heads)
    let start = piece.tileStart + page * piece.segment.rows.count + piece.rows.lowerBound
    for kept in own {
      for row in piece.rows.indices {
        let index = row - piece.rows.lowerBound
        tiles[index * heads + kept.head % heads] = kept.tiles[row: start + index]
      }
    }
    return tiles
  }

  /// Turns the kept logits of one stretch into probabilities.
  private func exponentiateKept(
    _ request: AttentionRequest<CPUBackend>, piece: OwnPiece, stretch: Int, _ total: Partial
  ) {
    let width = Self.tileWidth
    let first = stretch * Self.stretchPages
    for (index, tile) in keptTiles(request, piece: piece, page: first).enumerated() {
      guard let tile else { continue }
      let position = piece.segment.firstPosition + piece.rows.lowerBound + index / request.shape.groupSize
      for page in first..<min(first + Self.stretchPages, piece.pageCount) {
        let row = tile + (page - first) * piece.segment.rows.count * width
        let valid = min(width, position - page * width + 1)
        if valid > 0 {
          kernels.exp_shifted(row, valid, total.maximum[index] + log(total.sum[index]))
        } else {
          row.update(repeating: 0, count: width)
        }
      }
    }
  }

  /// Hands over the first elements of pages.
  private static func withPointers(
    to pages: ArraySlice<Page>, _ body: (UnsafePointer<UnsafeRawPointer?>?) -> Void
  ) {
    withUnsafeTemporaryAllocation(of: UnsafeRawPointer?.self, capacity: pages.count) { pointers in
      for (index, page) in pages.enumerated() {
        pointers.initializeElement(at: index, to: UnsafeRawPointer(page.memory.pointer))
      }
      body(UnsafePointer(pointers.baseAddress))
    }
  }

  /// Normalises a piece's sums and writes them out.
  private func finish(_ request: AttentionRequest<CPUBackend>, piece: OwnPiece, _ total: Partial) {
    let groupSize = request.shape.groupSize
    for index in 0..<total.queries {
      let row = piece.segment.rows.lowerBound + piece.rows.lowerBound + index / groupSize
      let head = piece.group * groupSize + index % groupSize
      let output = total.output + index * total.dimension
      kernels.scale(output, total.dimension, 1 / total.sum[index])
      (request.output[row: row] + head * total.dimension).update(from: output, count: total.dimension)
      request.logSumExp?[row: row][head] = total.maximum[index] + log(total.sum[index])
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
  func tile(
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

  /// Lent rows at all positions times values: the output of every query head that borrows.
  func multiplyLent(_ request: BorrowRequest<CPUBackend>, segments: [AttentionSegment<Page>]) {
    if borrowInTiles(request, segments: segments) { return }
    // With kept rows nothing but values is shared, so each KV head is a piece of work of its own; without, a tile is
    // computed once for all KV heads that use it.
    let blocks = Self.blocks(of: segments, rows: Self.queriesPerTile / 2)
    let offsets = AttentionTiles.rowOffsets(segments)
    guard request.loans.allSatisfy({ $0.lender.tiles != nil }) else {
      return pool.run(blocks.count) { _, item in
        let block = blocks[item]
        self.borrow(request, block: block, segment: segments[block.segment])
      }
    }
    let parts = request.loansByGroup()
    pool.run(blocks.count * parts.count) { _, item in
      let block = blocks[item / parts.count]
      let (group, loans) = parts[item % parts.count]
      self.weigh(
        request, group: group, loans: loans, block: block, segment: segments[block.segment],
        tileStart: offsets[block.segment] + block.rows.lowerBound)
    }
  }

  /// Kept rows of all heads that one KV head borrows from, times its values, which are read once.
  private func weigh(
    _ request: BorrowRequest<CPUBackend>, group: Int, loans: [KeptLoan<CPUBackend>], block: Block,
    segment: AttentionSegment<Page>, tileStart: Int
  ) {
    let rows = block.rows.count
    let dimension = request.shape.headDimension
    let count = segment.firstPosition + block.rows.upperBound
    let sumFloats = loans.count * rows * dimension
    let tileFloats = loans.count * rows * Self.tileWidth
    withUnsafeTemporaryAllocation(byteCount: (sumFloats + tileFloats) * 4, alignment: 64) { memory in
      let sums = memory.baseAddress!.assumingMemoryBound(to: Float.self)  // [loans, rows, D]
      sums.update(repeating: 0, count: sumFloats)
      let weights = loans.map { Optional(UnsafePointer($0.tiles[row: tileStart])) }
      let pages = segment.values[group][..<KVPageLayout.pageCount(length: count)]
      weights.withUnsafeBufferPointer { weights in
        Self.withPointers(to: pages) { values in
          var call = kindred_kept_loan(
            type: request.type.kernelType, d: dimension, loans: loans.count, rows: rows, count: count,
            weights: weights.baseAddress, page_stride: segment.rows.count * Self.tileWidth, values: values,
            tile: sums + sumFloats, output: sums)
          kernels.weigh_values(&call)
        }
      }
      for (index, loan) in loans.enumerated() {
        for row in 0..<rows {
          let target = request.output[row: segment.rows.lowerBound + block.rows.lowerBound + row]
          for head in loan.queryHeads {
            (target + head * dimension).update(from: sums + (index * rows + row) * dimension, count: dimension)
          }
        }
      }
    }
  }

  /// Adds up, page by page, each recomputed tile times the values of the KV heads that borrow it.
  private func borrow(
    _ request: BorrowRequest<CPUBackend>, block: Block, segment: AttentionSegment<Page>
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
          self.tile(of: loan.lender, block: block, segment: segment, page: page, into: scratch)
          for borrower in loan.borrowers {
            kernels.accumulate(
              request.type.kernelType, scratch, rows, segment.values[borrower.group][page].memory.pointer,
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
