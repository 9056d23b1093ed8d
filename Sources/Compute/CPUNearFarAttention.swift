// Attention of mapped KV heads in its general form: mixtures of lent rows at far positions, own keys in a near window.
//
// With `m` the sum of a row's far weights, the output is `Σ_far weight · V + max(0, 1 − m) · softmax(near logits) · V`.
// By linearity each distinct (lent head, KV head) product is computed once, whatever number of query heads mixes it.
// Products are taken over all positions, like those of the paper's form, and what lies in the window is then taken away
// again: windows are short, and whole pages go the fast way. The slow twin that materialises whole maps is in
// `NearFarAttentionTests`.

import CKindredKernels

extension CPUBackend {
  /// Rows that go through the near pages together.
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

  public func attend(_ request: BorrowRequest<CPUBackend>, segments: [AttentionSegment<Page>]) {
    let hasWindow = segments.contains { segment in request.groups.contains { segment.near[$0] != nil } }
    if request.isPlain, !hasWindow { return multiplyLent(request, segments: segments) }
    if !request.loans.isEmpty {
      guard let products = request.products else { preconditionFailure("a mixture needs room for products") }
      multiplyLent(request.separated(into: products), segments: segments)
    }
    let blocks = Self.blocks(of: segments, rows: Self.nearFarRows)
    let offsets = AttentionTiles.rowOffsets(segments)
    let groups = request.groups.map { ($0, request.products(of: $0)) }
    pool.run(blocks.count * groups.count) { _, item in
      let block = blocks[item / groups.count]
      let (group, products) = groups[item % groups.count]
      let piece = NearFarPiece(
        request, group: group, products: products, block: block, segment: segments[block.segment],
        tileStart: offsets[block.segment] + block.rows.lowerBound)
      withUnsafeTemporaryAllocation(byteCount: piece.scratchFloats * 4, alignment: 64) { memory in
        let scratch = NearFarScratch(memory.baseAddress!.assumingMemoryBound(to: Float.self), piece)
        self.accumulateNear(piece, scratch)
        self.finish(piece, scratch)
      }
    }
  }

  /// Over near positions: own attention by the online softmax over pages, and what lent rows give.
  private func accumulateNear(_ piece: NearFarPiece, _ scratch: NearFarScratch) {
    guard let near = piece.near else { return }
    let block = KVPageLayout.blockPositions
    let perPage = KVPageLayout.positions / block
    var blocks = near.window.neededBlocks(for: piece.positions)[...]
    while let page = blocks.first.map({ $0 / perPage }) {
      let inPage = blocks.prefix { $0 / perPage == page }
      blocks = blocks.dropFirst(inPage.count)
      let values = inPage.map { index in
        near.values?[index]?.memory.pointer
          ?? piece.segment.values[piece.group][page].memory.pointer
          + KVPageLayout.byteCount(
            headDimension: piece.dimension, type: piece.type, positions: index % perPage * block)
      }
      /// Adds rows of weights times the values of the page's near blocks.
      func accumulate(
        _ weights: UnsafePointer<Float>, rows: Int, into sums: UnsafeMutablePointer<Float>, stride: Int
      ) {
        for (index, values) in zip(inPage, values) {
          kernels.accumulate(
            piece.type.kernelType, weights + index % perPage * block, rows, values,
            min(block, piece.positions.upperBound - index * block), piece.dimension, sums, stride)
        }
      }
      attendNear(piece, page: page, blocks: inPage, near, scratch)
      accumulate(scratch.logits, rows: piece.queryCount, into: scratch.output, stride: piece.dimension)
      for (index, product) in piece.products.enumerated() {
        lendNear(piece, product.lender, page: page, near.window, scratch, index: index)
        accumulate(
          scratch.tile, rows: piece.rowCount, into: scratch.products + index * piece.dimension,
          stride: piece.products.count * piece.dimension)
      }
    }
  }

  /// One page's step of the softmax: near weights in `scratch.logits`, 0 elsewhere.
  private func attendNear(
    _ piece: NearFarPiece, page: Int, blocks: ArraySlice<Int>, _ near: NearPages<Page>, _ scratch: NearFarScratch
  ) {
    let width = KVPageLayout.positions
    let block = KVPageLayout.blockPositions
    let dimension = piece.dimension
    for index in blocks {
      guard let keys = near.keys[index] else { preconditionFailure("block \(index) of a near window is missing") }
      kernels.scores(
        piece.type.kernelType, scratch.query, dimension, piece.queryCount, dimension, keys.memory.pointer, block,
        piece.scale, scratch.logits + (index * block - page * width))
    }
    for query in 0..<piece.queryCount {
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
  }

  /// One page of a lent head's rows in `scratch.tile`, 0 at positions that are not near; adds up their near weight.
  private func lendNear(
    _ piece: NearFarPiece, _ lender: LentHead<CPUBackend>, page: Int, _ window: NearWindow, _ scratch: NearFarScratch,
    index: Int
  ) {
    let width = KVPageLayout.positions
    if let tiles = lender.tiles {
      let kept = tiles[row: piece.tileStart + page * piece.segment.rows.count]
      scratch.tile.update(from: kept, count: piece.rowCount * width)
    } else {
      tile(of: lender, block: piece.block, segment: piece.segment, page: page, into: scratch.tile)
    }
    for row in 0..<piece.rowCount {
      let weights = scratch.tile + row * width
      let far = window.far(of: piece.positions.lowerBound + row).local(toPage: page)
      (weights + far.lowerBound).update(repeating: 0, count: far.count)
      scratch.nearWeights[row * piece.products.count + index] += Self.sumOfPage(weights)
    }
  }

  private static func sumOfPage(_ row: UnsafePointer<Float>) -> Float {
    let bytes = UnsafeRawPointer(row)
    var sums = SIMD16<Float>.zero
    for start in stride(from: 0, to: KVPageLayout.positions, by: 16) {
      sums += bytes.loadUnaligned(fromByteOffset: start * 4, as: SIMD16<Float>.self)
    }
    return sums.sum()
  }

  /// Weighs the near part by what the far weights leave, mixes the products in, and writes the rows out.
  private func finish(_ piece: NearFarPiece, _ scratch: NearFarScratch) {
    let dimension = piece.dimension
    let width = piece.groupSize * dimension
    for row in 0..<piece.rowCount {
      let output = scratch.output + row * width
      let batchRow = piece.segment.rows.lowerBound + piece.block.rows.lowerBound + row
      let isMixed = piece.window?.far(of: piece.positions.lowerBound + row).isEmpty != true
      if piece.window != nil {
        for head in 0..<piece.groupSize {
          let share = isMixed ? max(0, 1 - scratch.farWeight(piece, row: row, head: head)) : 1
          kernels.scale(output + head * dimension, dimension, share / scratch.sums[row * piece.groupSize + head])
        }
      }
      if isMixed, let products = piece.request.products {
        let far = scratch.products + row * piece.products.count * dimension
        for (index, product) in piece.products.enumerated() {
          let whole = products[row: batchRow] + product.column * dimension
          let part = far + index * dimension
          for c in 0..<dimension { part[c] = whole[c] - part[c] }
        }
        // The rows of products are to the mixture what values are to weights.
        kernels.accumulate(
          KINDRED_F32, scratch.mixture, piece.groupSize, far, piece.products.count, dimension, output, dimension)
      }
      (piece.request.output[row: batchRow] + piece.group * width).update(from: output, count: width)
    }
  }
}

/// A product of a lent head's rows with a KV head's values.
private struct LentProduct {
  let lender: LentHead<CPUBackend>
  /// Where the product stands among the columns of `BorrowRequest.products`, in heads.
  let column: Int
  let borrower: Borrower
}

extension BorrowRequest<CPUBackend> {
  /// The products that one KV head uses, as ``separated(into:)`` numbers them.
  fileprivate func products(of group: Int) -> [LentProduct] {
    loans.flatMap { loan in loan.borrowers.map { (loan.lender, $0) } }.enumerated().compactMap { column, pair in
      pair.1.group == group ? LentProduct(lender: pair.0, column: column, borrower: pair.1) : nil
    }
  }
}

/// Some rows of one segment with one KV head.
private struct NearFarPiece {
  let request: BorrowRequest<CPUBackend>
  let group: Int
  let products: [LentProduct]
  let block: CPUBackend.Block
  let segment: AttentionSegment<CPUBackend.Page>
  /// Where kept tiles of these rows begin, in rows of tiles.
  let tileStart: Int
  let near: NearPages<CPUBackend.Page>?
  let window: NearWindow?

  init(
    _ request: BorrowRequest<CPUBackend>, group: Int, products: [LentProduct], block: CPUBackend.Block,
    segment: AttentionSegment<CPUBackend.Page>, tileStart: Int
  ) {
    precondition(products.count <= KVPageLayout.positions, "more lent heads than a mixture may have")
    self.request = request
    self.group = group
    self.products = products
    self.block = block
    self.segment = segment
    self.tileStart = tileStart
    near = segment.near[group]
    window = near?.window
  }

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

  var scratchFloats: Int { NearFarScratch.offsets(self).last ?? 0 }
}

/// What the work on one piece needs besides.
private struct NearFarScratch {
  let tile: UnsafeMutablePointer<Float>  // [rows, 64]
  let products: UnsafeMutablePointer<Float>  // [rows, products, D], of near positions; then of far ones
  let nearWeights: UnsafeMutablePointer<Float>  // [rows, products], what lent rows sum to at near positions
  let mixture: UnsafeMutablePointer<Float>  // [R, 64], what each product counts for each query head
  let output: UnsafeMutablePointer<Float>  // [rows, R, D]
  let query: UnsafeMutablePointer<Float>  // [rows, R, D]
  let logits: UnsafeMutablePointer<Float>  // [rows, R, 64]
  let maximums: UnsafeMutablePointer<Float>  // [rows, R]
  let sums: UnsafeMutablePointer<Float>  // [rows, R]

  /// Where each part begins, and the end.
  static func offsets(_ piece: NearFarPiece) -> [Int] {
    let width = KVPageLayout.positions
    let products = piece.rowCount * piece.products.count
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
    (tile, products, nearWeights) = (memory, memory + offsets[1], memory + offsets[2])
    (mixture, output, query) = (memory + offsets[3], memory + offsets[4], memory + offsets[5])
    (logits, maximums, sums) = (memory + offsets[6], memory + offsets[7], memory + offsets[8])
    for (index, product) in piece.products.enumerated() {
      for (head, weight) in zip(product.borrower.queryHeads, product.borrower.weights) {
        mixture[(head - piece.group * piece.groupSize) * KVPageLayout.positions + index] = weight
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

  /// What the far weights of a query head sum to: lent rows sum to 1 over all positions.
  func farWeight(_ piece: NearFarPiece, row: Int, head: Int) -> Float {
    let count = piece.products.count
    return (0..<count).reduce(0) {
      $0 + mixture[head * KVPageLayout.positions + $1] * (1 - nearWeights[row * count + $1])
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
