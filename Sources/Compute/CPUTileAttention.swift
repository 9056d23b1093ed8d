// Attention of many rows with dot products of pairs, on instruction sets that have them: matrix tiles or vectors
// (`CKernels/strips_attention.h`). Results agree with those of few rows (CPUAttention.swift) within rounding.
//
// A layer's keys and values are packed once for all rows of a pass; blocks of rows then share them.

import CKindredKernels

extension CPUBackend {
  /// KV heads that one piece of work borrows for at most. The fewer they are, the more rows it has: packed keys and
  /// values of a long context lie in no nearby cache, and every piece reads them once.
  private static let mostBorrowers = 3

  /// Whether a segment's rows are many enough to be packed for, its cache is of a precision that 16 bits stand for, and
  /// the kernel has room for its heads.
  func isTiled(_ segment: AttentionSegment<Page>, type: KVType, shape: AttentionShape) -> Bool {
    kernels.attend_tiles != nil && type != .f32 && shape.headDimension <= KINDRED_TILE_COLUMNS
      && shape.groupSize <= KINDRED_TILE_QUERIES && segment.rows.count >= KINDRED_TILE_ROWS
  }

  func attendInTiles(_ request: AttentionRequest<CPUBackend>, segments: [AttentionSegment<Page>]) {
    let shape = request.shape
    let dimension = shape.headDimension
    let heads = shape.groupSize
    let type = request.type
    let groups = request.groups
    let packed = TilePages(
      segments.flatMap { segment in
        groups.flatMap { group in
          [
            .init(keys: segment.keys[group], segment: segment, type: type, dimension: dimension),
            .init(values: segment.values[group], segment: segment, type: type, dimension: dimension),
          ]
        }
      }, backend: self)
    let blocks = Self.blocks(of: segments, rows: KINDRED_TILE_QUERIES / heads)
    pool.run(blocks.count * groups.count) { worker, item in
      let block = blocks[item / groups.count]
      let segment = segments[block.segment]
      let group = groups[item % groups.count]
      let pages = 2 * (block.segment * groups.count + item % groups.count)
      let row = segment.rows.lowerBound + block.rows.lowerBound
      let column = group * heads * dimension
      var call = kindred_tile_attention(
        d: dimension, heads: heads, rows: block.rows.count,
        first_position: segment.firstPosition + block.rows.lowerBound,
        scale: shape.scale, query: request.query[row: row] + column, query_stride: request.query.columns,
        keys: packed[pages], values: packed[pages + 1], output: request.output[row: row] + column,
        output_stride: request.output.columns, log_sum_exp: request.logSumExp.map { $0[row: row] + group * heads },
        log_sum_exp_stride: request.logSumExp?.columns ?? 0)
      self.kernels.attend_tiles(&call, self.tileScratch.pointer + worker * Self.scratchBytes)
    }
  }

  /// Borrowed attention in tiles; `false`, and nothing done, where the loans or the segments do not suit.
  func borrowInTiles(_ request: BorrowRequest<CPUBackend>, segments: [AttentionSegment<Page>]) -> Bool {
    let dimension = request.shape.headDimension
    let suits = segments.allSatisfy { isTiled($0, type: request.type, shape: request.shape) }
    guard suits,
      request.loans.allSatisfy({ loan in
        loan.lender.tiles == nil && loan.lender.type != .f32 && loan.lender.shape.headDimension <= KINDRED_TILE_COLUMNS
      })
    else { return false }
    // The lender's keys, and the values that are borrowed for, are packed once each.
    var sources: [TilePages.Source] = []
    // By first page; sequences may share that and go on differently.
    var lentKeys: [[ObjectIdentifier: Int]] = segments.map { _ in [:] }
    var values: [[Int: Int]] = segments.map { _ in [:] }  // by KV head
    for (index, segment) in segments.enumerated() {
      for loan in request.loans {
        let lender = loan.lender
        let pages = lender.keys[index]
        if lentKeys[index][ObjectIdentifier(pages[0])] == nil {
          lentKeys[index][ObjectIdentifier(pages[0])] = sources.count
          sources.append(
            .init(keys: pages, segment: segment, type: lender.type, dimension: lender.shape.headDimension))
        }
        for borrower in loan.borrowers where values[index][borrower.group] == nil {
          values[index][borrower.group] = sources.count
          sources.append(
            .init(values: segment.values[borrower.group], segment: segment, type: request.type, dimension: dimension))
        }
      }
    }
    let packed = TilePages(sources, backend: self)
    let pieces = request.loans.flatMap { loan in
      stride(from: 0, to: loan.borrowers.count, by: Self.mostBorrowers).flatMap { start in
        let borrowers = Array(loan.borrowers[start..<min(start + Self.mostBorrowers, loan.borrowers.count)])
        // Each borrower's rows are rounded up to 32 in the kernel's room for queries.
        let rows = KINDRED_TILE_QUERIES / borrowers.count / 32 * 32
        return Self.blocks(of: segments, rows: rows).map { block in
          (block: block, loan: Loan(lender: loan.lender, borrowers: borrowers))
        }
      }
    }
    pool.run(pieces.count) { worker, item in
      let (block, loan) = pieces[item]
      let segment = segments[block.segment]
      guard let keys = lentKeys[block.segment][ObjectIdentifier(loan.lender.keys[block.segment][0])] else { return }
      self.borrow(
        loan, into: request.output, dimension: dimension, keys: packed[keys],
        values: loan.borrowers.compactMap { values[block.segment][$0.group].map { UnsafePointer(packed[$0]) } },
        rows: segment.rows.lowerBound + block.rows.lowerBound..<segment.rows.lowerBound + block.rows.upperBound,
        firstPosition: segment.firstPosition + block.rows.lowerBound, worker: worker)
    }
    return true
  }

  /// One block of rows of one loan.
  private func borrow(
    _ loan: Loan<CPUBackend>, into output: Tensor, dimension: Int, keys: UnsafePointer<UInt16>,
    values: [UnsafePointer<UInt16>?], rows: Range<Int>, firstPosition: Int, worker: Int
  ) {
    let lender = loan.lender
    let first = output[row: rows.lowerBound]
    let targets = loan.borrowers.map { Optional(first + $0.queryHeads[0] * dimension) }
    values.withUnsafeBufferPointer { values in
      targets.withUnsafeBufferPointer { targets in
        var call = kindred_tile_loan(
          lent_d: lender.shape.headDimension, d: dimension, rows: rows.count, first_position: firstPosition,
          borrowers: targets.count, scale: lender.shape.scale,
          query: lender.query[row: rows.lowerBound] + lender.head * lender.shape.headDimension,
          query_stride: lender.query.columns, log_sum_exp: lender.logSumExp[row: rows.lowerBound] + lender.head,
          log_sum_exp_stride: lender.logSumExp.columns, keys: keys, values: values.baseAddress,
          outputs: targets.baseAddress, output_stride: output.columns)
        kernels.borrow_tiles(&call, tileScratch.pointer + worker * Self.scratchBytes)
      }
    }
    // Query heads of one KV head that use the same lent head have the same output.
    for borrower in loan.borrowers {
      for row in rows {
        let source = output[row: row] + borrower.queryHeads[0] * dimension
        for head in borrower.queryHeads.dropFirst() {
          (output[row: row] + head * dimension).update(from: source, count: dimension)
        }
      }
    }
  }
}

/// Packed pages of keys or values, one list of pages behind the other.
private final class TilePages {
  struct Source {
    let isKeys: Bool
    let pages: [CPUBackend.Page]
    /// Positions that the rows of a segment see.
    let length: Int
    let type: KVType
    let dimension: Int

    init(keys: [CPUBackend.Page], segment: AttentionSegment<CPUBackend.Page>, type: KVType, dimension: Int) {
      self.init(isKeys: true, pages: keys, segment: segment, type: type, dimension: dimension)
    }

    init(values: [CPUBackend.Page], segment: AttentionSegment<CPUBackend.Page>, type: KVType, dimension: Int) {
      self.init(isKeys: false, pages: values, segment: segment, type: type, dimension: dimension)
    }

    private init(
      isKeys: Bool, pages: [CPUBackend.Page], segment: AttentionSegment<CPUBackend.Page>, type: KVType, dimension: Int
    ) {
      self.isKeys = isKeys
      self.pages = pages
      self.type = type
      self.dimension = dimension
      length = segment.firstPosition + segment.rows.count
    }

    var pageCount: Int { KVPageLayout.pageCount(length: length) }
    /// Elements of one packed page.
    var pageElements: Int { (isKeys ? 2 : 1) * KVPageLayout.positions * ((dimension + 31) & ~31) }
  }

  private let memory: UnsafeMutableRawPointer
  /// Where each source starts, in elements.
  private let starts: [Int]

  init(_ sources: [Source], backend: CPUBackend) {
    let starts = sources.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1.pageCount * $1.pageElements) }
    let memory = UnsafeMutableRawPointer.allocate(byteCount: starts[sources.count] * 2, alignment: 64)
    self.starts = starts
    self.memory = memory
    let kernels = backend.kernels
    let pages = sources.indices.flatMap { index in (0..<sources[index].pageCount).map { (index, $0) } }
    backend.pool.run(pages.count) { _, item in
      let (index, page) = pages[item]
      let source = sources[index]
      let tiles = memory.assumingMemoryBound(to: UInt16.self) + starts[index] + page * source.pageElements
      let stored = source.pages[page].memory.pointer
      if source.isKeys {
        kernels.pack_key_tiles(source.type.kernelType, stored, source.dimension, tiles)
      } else {
        let count = min(KVPageLayout.positions, source.length - page * KVPageLayout.positions)
        kernels.pack_value_tiles(source.type.kernelType, stored, count, source.dimension, tiles)
      }
    }
  }

  deinit { memory.deallocate() }

  /// The first element of source `index`.
  subscript(index: Int) -> UnsafePointer<UInt16> {
    UnsafePointer(memory.assumingMemoryBound(to: UInt16.self) + starts[index])
  }
}
