// Attention of mapped KV heads in its general form: mixtures of lent rows at far positions, own keys in a near window
// (ALGORITHMS §3 of the design).
//
// With `m` the sum of a row's far weights, the output is `Σ_far weight · V + max(0, 1 − m) · softmax(near logits) · V`.
// By linearity each distinct (lent head, KV head) product is computed once, whatever number of query heads mixes it.
// Pages and blocks lie at fixed positions and each output is summed in one order, so results do not depend on how rows
// are grouped. The slow twin that materialises whole maps is in `NearFarAttentionTests`.

import CKindredKernels

extension CPUBackend {
  /// Rows that go through the pages together.
  private static let nearFarRows = 32

  /// Writes rows into the blocks of near windows.
  func storeNear(_ tensor: Tensor, as part: KVPart, in segments: [AttentionSegment<Page>], type: KVType) {
    let store = part == .keys ? kernels.store_key : kernels.store_value
    let block = KVPageLayout.blockPositions
    for segment in segments {
      let dimension = tensor.columns / segment.keys.count
      for (head, near) in segment.near {
        guard let pages = part == .keys ? near.keys : near.values else { continue }
        for offset in 0..<segment.rows.count {
          let (index, slot) = (segment.firstPosition + offset).quotientAndRemainder(dividingBy: block)
          guard let page = pages[index] else { continue }
          store?(
            type.kernelType, tensor[row: segment.rows.lowerBound + offset] + head * dimension, dimension, slot,
            page.memory.pointer)
        }
      }
    }
  }

  func attendNearFar(_ request: BorrowRequest<CPUBackend>, segments: [AttentionSegment<Page>]) {
    let parts = request.splitByGroup()
    let blocks = Self.blocks(of: segments, rows: Self.nearFarRows)
    let offsets = AttentionTiles.rowOffsets(segments)
    pool.run(blocks.count * parts.count) { _, item in
      let block = blocks[item / parts.count]
      let piece = NearFarPiece(
        parts[item % parts.count], block: block, segment: segments[block.segment],
        tileStart: offsets[block.segment] + block.rows.lowerBound)
      withUnsafeTemporaryAllocation(byteCount: piece.scratchFloats * 4, alignment: 64) { memory in
        let scratch = NearFarScratch(memory.baseAddress!.assumingMemoryBound(to: Float.self), piece)
        self.accumulateFar(piece, scratch)
        self.accumulateNear(piece, scratch)
        self.finish(piece, scratch)
      }
    }
  }

  /// Lent rows at far positions times values, and what each row's far weights sum to.
  private func accumulateFar(_ piece: NearFarPiece, _ scratch: NearFarScratch) {
    let width = KVPageLayout.positions
    let products = piece.loans.count
    let far = piece.far(of: piece.positions.upperBound - 1)
    guard products > 0, !far.isEmpty else { return }
    let values = piece.segment.values[piece.group]
    for page in far.lowerBound / width..<KVPageLayout.pageCount(length: far.upperBound) {
      let count = min(width, piece.positions.upperBound - page * width)
      for (index, loan) in piece.loans.enumerated() {
        let tile = farTile(of: loan.lender, piece, page: page, product: index, scratch)
        kernels.accumulate(
          piece.type.kernelType, tile, piece.rowCount, values[page].memory.pointer, count, piece.dimension,
          scratch.products + index * piece.dimension, products * piece.dimension)
      }
    }
  }

  /// A tile of a lent head's rows, 0 at positions that are not far; adds its sums to the rows' far weight.
  private func farTile(
    of lender: LentHead<CPUBackend>, _ piece: NearFarPiece, page: Int, product: Int, _ scratch: NearFarScratch
  ) -> UnsafePointer<Float> {
    let width = KVPageLayout.positions
    let kept = lender.tiles.map { $0[row: piece.tileStart + page * piece.segment.rows.count] }
    if kept == nil { tile(of: lender, block: piece.block, segment: piece.segment, page: page, into: scratch.tile) }
    guard piece.window != nil else { return UnsafePointer(kept ?? scratch.tile) }
    for index in 0..<piece.rowCount {
      let row = scratch.tile + index * width
      if let kept { row.update(from: kept + index * width, count: width) }
      let far = piece.far(of: piece.positions.lowerBound + index).local(toPage: page)
      row.update(repeating: 0, count: far.lowerBound)
      (row + far.upperBound).update(repeating: 0, count: width - far.upperBound)
      scratch.farWeights[index * piece.loans.count + product] += Self.sumOfPage(row)
    }
    return UnsafePointer(scratch.tile)
  }

  private static func sumOfPage(_ row: UnsafePointer<Float>) -> Float {
    let bytes = UnsafeRawPointer(row)
    var sums = SIMD16<Float>.zero
    for start in stride(from: 0, to: KVPageLayout.positions, by: 16) {
      sums += bytes.loadUnaligned(fromByteOffset: start * 4, as: SIMD16<Float>.self)
    }
    return sums.sum()
  }

  /// Own attention over near positions, by the online softmax over pages.
  private func accumulateNear(_ piece: NearFarPiece, _ scratch: NearFarScratch) {
    guard let near = piece.near else { return }
    let width = KVPageLayout.positions
    let block = KVPageLayout.blockPositions
    let dimension = piece.dimension
    let queries = piece.queryCount
    let values = piece.segment.values[piece.group]
    var blocks = near.window.neededBlocks(for: piece.positions)[...]
    while let page = blocks.first.map({ $0 * block / width }) {
      let inPage = blocks.prefix { $0 * block / width == page }
      blocks = blocks.dropFirst(inPage.count)
      for index in inPage {
        guard let keys = near.keys[index] else { preconditionFailure("block \(index) of a near window is missing") }
        kernels.scores(
          piece.type.kernelType, scratch.query, dimension, queries, dimension, keys.memory.pointer, block, piece.scale,
          scratch.logits + (index * block - page * width))
      }
      for query in 0..<queries {
        let logits = scratch.logits + query * width
        let position = piece.positions.lowerBound + query / piece.groupSize
        let valid = min(width, position - page * width + 1)
        let far = near.window.far(of: position).local(toPage: page)
        guard valid > 0, far.count < valid else {
          logits.update(repeating: 0, count: width)
          continue
        }
        (logits + far.lowerBound).update(repeating: -.infinity, count: far.count)
        let factor = kernels.softmax_step(logits, valid, scratch.maximums + query, scratch.sums + query)
        if factor != 1 { kernels.scale(scratch.output + query * dimension, dimension, factor) }
      }
      for index in inPage {
        let start = index * block
        let stored =
          near.values?[index]?.memory.pointer
          ?? values[page].memory.pointer
          + KVPageLayout.byteCount(headDimension: dimension, type: piece.type, positions: start - page * width)
        kernels.accumulate(
          piece.type.kernelType, scratch.logits + (start - page * width), queries, stored,
          min(block, piece.positions.upperBound - start), dimension, scratch.output, dimension)
      }
    }
  }

  /// Weighs the near part by what the far weights leave, mixes the products in, and writes the rows out.
  private func finish(_ piece: NearFarPiece, _ scratch: NearFarScratch) {
    let dimension = piece.dimension
    let products = piece.loans.count
    for index in 0..<piece.rowCount {
      let output = scratch.output + index * piece.groupSize * dimension
      if piece.near != nil {
        for head in 0..<piece.groupSize {
          var farWeight: Float = 0
          for product in 0..<products {
            farWeight +=
              scratch.mixture[head * KVPageLayout.positions + product]
              * scratch.farWeights[index * products + product]
          }
          let share = max(0, 1 - farWeight) / scratch.sums[index * piece.groupSize + head]
          kernels.scale(output + head * dimension, dimension, share)
        }
      }
      // The rows of products are to the mixture what values are to weights.
      kernels.accumulate(
        KINDRED_F32, scratch.mixture, piece.groupSize, scratch.products + index * products * dimension, products,
        dimension, output, dimension)
      let row = piece.request.output[row: piece.segment.rows.lowerBound + piece.block.rows.lowerBound + index]
      (row + piece.group * piece.groupSize * dimension).update(from: output, count: piece.groupSize * dimension)
    }
  }
}

/// Some rows of one segment with one KV head.
private struct NearFarPiece {
  /// The request of this KV head alone.
  let request: BorrowRequest<CPUBackend>
  let block: CPUBackend.Block
  let segment: AttentionSegment<CPUBackend.Page>
  /// Where kept tiles of these rows begin, in rows of tiles.
  let tileStart: Int
  let near: NearPages<CPUBackend.Page>?
  let window: NearWindow?

  init(
    _ request: BorrowRequest<CPUBackend>, block: CPUBackend.Block, segment: AttentionSegment<CPUBackend.Page>,
    tileStart: Int
  ) {
    precondition(request.loans.count <= KVPageLayout.positions, "more lent heads than a mixture may have")
    self.request = request
    self.block = block
    self.segment = segment
    self.tileStart = tileStart
    near = segment.near[request.groups[0]]
    window = near?.window
  }

  var group: Int { request.groups[0] }
  var loans: [Loan<CPUBackend>] { request.loans }
  var type: KVType { request.type }
  var scale: Float { request.shape.scale }
  var dimension: Int { request.shape.headDimension }
  var groupSize: Int { request.shape.groupSize }
  var rowCount: Int { block.rows.count }
  var queryCount: Int { rowCount * groupSize }

  /// The positions of the rows.
  var positions: Range<Int> {
    segment.firstPosition + block.rows.lowerBound..<segment.firstPosition + block.rows.upperBound
  }

  /// The far positions of the row at `position`: without a window, all that it sees.
  func far(of position: Int) -> Range<Int> { window?.far(of: position) ?? 0..<position + 1 }

  var scratchFloats: Int { NearFarScratch.offsets(self).last ?? 0 }
}

/// What the work on one piece needs besides.
private struct NearFarScratch {
  let tile: UnsafeMutablePointer<Float>  // [rows, 64]
  let products: UnsafeMutablePointer<Float>  // [rows, products, D]
  let farWeights: UnsafeMutablePointer<Float>  // [rows, products]
  let mixture: UnsafeMutablePointer<Float>  // [R, 64], what each product counts for each query head
  let output: UnsafeMutablePointer<Float>  // [rows, R, D]
  let query: UnsafeMutablePointer<Float>  // [rows, R, D]
  let logits: UnsafeMutablePointer<Float>  // [rows, R, 64]
  let maximums: UnsafeMutablePointer<Float>  // [rows, R]
  let sums: UnsafeMutablePointer<Float>  // [rows, R]

  /// Where each part begins, and the end.
  static func offsets(_ piece: NearFarPiece) -> [Int] {
    let width = KVPageLayout.positions
    let products = piece.rowCount * piece.loans.count
    let near = piece.near == nil ? 0 : piece.queryCount
    let sizes = [
      piece.rowCount * width, products * piece.dimension, products, piece.groupSize * width,
      piece.queryCount * piece.dimension, near * piece.dimension, near * width, near, near,
    ]
    return sizes.reduce(into: [0]) { $0.append($0[$0.count - 1] + ($1 + 15) & ~15) }
  }

  /// Lays the parts out in `memory`: sums begin at 0, queries and the mixture are copied.
  init(_ memory: UnsafeMutablePointer<Float>, _ piece: NearFarPiece) {
    let offsets = Self.offsets(piece)
    memory.update(repeating: 0, count: offsets[9])
    (tile, products, farWeights) = (memory, memory + offsets[1], memory + offsets[2])
    (mixture, output, query) = (memory + offsets[3], memory + offsets[4], memory + offsets[5])
    (logits, maximums, sums) = (memory + offsets[6], memory + offsets[7], memory + offsets[8])
    for (product, loan) in piece.loans.enumerated() {
      for borrower in loan.borrowers {
        for (head, weight) in zip(borrower.queryHeads, borrower.weights) {
          mixture[(head - piece.group * piece.groupSize) * KVPageLayout.positions + product] = weight
        }
      }
    }
    guard piece.near != nil else { return }
    guard let source = piece.request.query else { preconditionFailure("a near window needs queries") }
    maximums.update(repeating: -.infinity, count: piece.queryCount)
    let columns = piece.groupSize * piece.dimension
    for index in 0..<piece.rowCount {
      (query + index * columns).update(
        from: source[row: piece.segment.rows.lowerBound + piece.block.rows.lowerBound + index] + piece.group * columns,
        count: columns)
    }
  }
}

extension Range<Int> {
  /// The part of these positions in a page, counted from the page's first.
  fileprivate func local(toPage page: Int) -> Range<Int> {
    let first = page * KVPageLayout.positions
    let whole = first..<first + KVPageLayout.positions
    let part = clamped(to: whole)
    return part.lowerBound - first..<part.upperBound - first
  }
}
