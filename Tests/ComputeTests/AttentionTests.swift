// Paged, tiled attention against its slow twin: whole maps in double precision.

import Foundation
import KindredCompute
import Testing

/// Random heads of one sequence: queries, keys and values of every position, in the batch layout.
struct Heads {
  let shape: AttentionShape
  let positions: Int
  let query: [Float]  // [positions, H · D]
  let key: [Float]  // [positions, G · D]
  let value: [Float]  // [positions, G · D]

  /// - Parameters:
  ///   - type: keys and values are rounded so that a type of blocks holds them.
  ///   - keyOffset: added to keys, which are then rounded so that 16 bits hold them.
  init(_ shape: AttentionShape, positions: Int, seed: UInt64, type: KVType = .f32, keyOffset: Float = 0) {
    self.shape = shape
    self.positions = positions
    var state = seed
    func values(_ count: Int) -> [Float] {
      (0..<count).map { _ in
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return Float(Int64(bitPattern: state) >> 40) / Float(1 << 23) * 2
      }
    }
    query = values(positions * shape.queryHeads * shape.headDimension)
    func stored() -> [Float] {
      let values = values(positions * shape.kvHeads * shape.headDimension)
      guard type.blockElements > 1 else { return values }
      // Each block's first element is its largest, and its scale a power of 2.
      let (largest, unit): (Float, Float) = type == .q8_0 ? (127, 64) : (7, 4)
      return values.enumerated().map { index, value in
        guard index.isMultiple(of: type.blockElements) else { return (value / 2 * largest).rounded() / unit }
        return type == .q4_0 ? -8 / unit : (value < 0 ? -largest : largest) / unit
      }
    }
    key = stored().map { keyOffset == 0 ? $0 : keyOffset + ($0 * 32).rounded() / 32 }
    value = stored()
  }

  /// The post-softmax row of a query head at a position.
  func row(head: Int, position: Int) -> [Double] {
    let d = shape.headDimension
    let group = head / shape.groupSize
    let logits = (0...position).map { other in
      (0..<d).reduce(0.0) { sum, c in
        sum + Double(query[(position * shape.queryHeads + head) * d + c])
          * Double(key[(other * shape.kvHeads + group) * d + c])
      } * Double(shape.scale)
    }
    let maximum = logits.max() ?? 0
    let weights = logits.map { exp($0 - maximum) }
    let sum = weights.reduce(0, +)
    return weights.map { $0 / sum }
  }

  /// A row of weights times the values of a KV head.
  func product(_ row: [Double], group: Int) -> [Double] {
    let d = shape.headDimension
    return (0..<d).map { c in
      row.indices.reduce(0.0) { $0 + row[$1] * Double(value[($1 * shape.kvHeads + group) * d + c]) }
    }
  }
}

/// One sequence's pages with keys and values stored, on one backend.
struct Cache {
  let backend: CPUBackend
  var segment: AttentionSegment<CPUBackend.Page>

  init(_ heads: Heads, set: InstructionSet, type: KVType = .f32, rows: Range<Int>? = nil) throws {
    let backend = try CPUBackend(threads: 2, instructionSet: set)
    self.backend = backend
    let pages = KVPageLayout.pageCount(length: heads.positions)
    let shape = heads.shape
    func allocate() throws -> [[CPUBackend.Page]] {
      try (0..<shape.kvHeads).map { _ in
        try (0..<pages).map { _ in try backend.makePage(headDimension: shape.headDimension, type: type) }
      }
    }
    segment = AttentionSegment(
      rows: 0..<heads.positions, firstPosition: 0, keys: try allocate(), values: try allocate())
    let columns = shape.kvHeads * shape.headDimension
    backend.store(try tensor(heads.key, columns), as: .keys, in: [segment], type: type)
    backend.store(try tensor(heads.value, columns), as: .values, in: [segment], type: type)
    if let rows {
      segment.rows = 0..<rows.count
      segment.firstPosition = rows.lowerBound
    }
  }

  func tensor(_ values: [Float], _ columns: Int) throws -> CPUBackend.Tensor {
    let tensor = try backend.makeTensor(rows: values.count / columns, columns: columns)
    backend.write(values, to: tensor)
    return tensor
  }
}

@Suite struct AttentionTests {
  /// Heads whose elements fill no vector, or blocks.
  static func shape(_ type: KVType) -> AttentionShape {
    AttentionShape(queryHeads: 6, kvHeads: 2, headDimension: type.blockElements > 1 ? 32 : 20)
  }

  /// Whole sequences across several pages, and late rows alone as in decode.
  @Test(
    arguments: InstructionSet.available,
    [0..<1, 0..<63, 0..<65, 0..<150, 149..<150, 60..<70, 240..<300, 1299..<1300, 1230..<1300])
  func ownAttentionAgreesWithWholeMaps(set: InstructionSet, rows: Range<Int>) throws {
    for type in KVType.allCases {
      let heads = Heads(Self.shape(type), positions: rows.upperBound, seed: 1, type: type)
      try checkOwn(heads, rows: rows, set: set, type: type)
    }
    try checkOwn(
      Heads(Self.shape(.f16), positions: rows.upperBound, seed: 1, keyOffset: 30), rows: rows, set: set, type: .f16)
  }

  /// Rounding of keys and values to 8 bits, as in bf16, moves outputs by up to 2%, of which half precision and tiles
  /// take a part. What is stored in blocks is exact here.
  static func tolerance(_ type: KVType) -> Double { type == .f32 ? 1e-4 : type == .bf16 ? 3e-2 : 1e-2 }

  private func checkOwn(_ heads: Heads, rows: Range<Int>, set: InstructionSet, type: KVType) throws {
    let cache = try Cache(heads, set: set, type: type, rows: rows)
    let d = heads.shape.headDimension
    let columns = 6 * d
    let query = try cache.tensor(Array(heads.query[(rows.lowerBound * columns)...]), columns)
    let output = try cache.backend.makeTensor(rows: rows.count, columns: columns)
    let logSumExp = try cache.backend.makeTensor(rows: rows.count, columns: 6)
    cache.backend.attend(
      AttentionRequest(
        query: query, shape: heads.shape, type: type, groups: [0, 1], output: output, logSumExp: logSumExp),
      segments: [cache.segment])
    let found = cache.backend.read(output, rows: 0..<rows.count)
    for (index, position) in rows.enumerated() {
      for head in 0..<6 {
        let expected = heads.product(heads.row(head: head, position: position), group: head / 3)
        for c in 0..<d {
          let difference = abs(Double(found[index * columns + head * d + c]) - expected[c])
          #expect(difference < Self.tolerance(type), "\(type), row \(position), head \(head)")
        }
      }
    }
  }

  /// Lent heads of one shape serve one, two and four KV heads of a large layer of another, recomputed and kept, over
  /// more rows than are worked on together.
  @Test(arguments: InstructionSet.available, [true, false])
  func borrowedAttentionAgreesWithWholeMaps(set: InstructionSet, kept: Bool) throws {
    for type in KVType.allCases { try checkBorrowed(set: set, kept: kept, smallType: type, type: type) }
    for smallType in [KVType.q8_0, .q4_0] {
      for type in [KVType.f32, .f16] { try checkBorrowed(set: set, kept: kept, smallType: smallType, type: type) }
    }
  }

  private func checkBorrowed(set: InstructionSet, kept: Bool, smallType: KVType, type: KVType) throws {
    let count = 400
    // The lender's attention may take tiles where the borrower's does not.
    let tolerance = max(Self.tolerance(type), Self.tolerance(smallType))
    let smallShape = AttentionShape(queryHeads: 4, kvHeads: 2, headDimension: smallType.blockElements > 1 ? 64 : 12)
    let small = Heads(smallShape, positions: count, seed: 2, type: smallType)
    let largeShape = AttentionShape(
      queryHeads: 8, kvHeads: 4, headDimension: Self.shape(type).headDimension)
    let large = Heads(largeShape, positions: count, seed: 3, type: type)
    let smallCache = try Cache(small, set: set, type: smallType)
    let largeCache = try Cache(large, set: set, type: type)
    let backend = smallCache.backend
    let d = large.shape.headDimension
    let query = try smallCache.tensor(small.query, 4 * smallShape.headDimension)
    let logSumExp = try backend.makeTensor(rows: count, columns: 4)
    backend.attend(
      AttentionRequest(
        query: query, shape: small.shape, type: smallType, groups: [0, 1],
        output: try backend.makeTensor(rows: count, columns: 4 * smallShape.headDimension), logSumExp: logSumExp),
      segments: [smallCache.segment])
    // Small head of each large query head; 3 serves all KV heads.
    let map = [3, 0, 3, 3, 1, 3, 3, 1]
    let loans = try [0, 1, 3].map { head -> Loan<CPUBackend> in
      var lender = LentHead<CPUBackend>(
        query: query, logSumExp: logSumExp, shape: small.shape, type: smallType, head: head,
        keys: [smallCache.segment.keys[head / 2]])
      if kept { lender.tiles = try backend.probabilities(of: lender, segments: [smallCache.segment]) }
      let borrowers = (0..<4).compactMap { group -> Borrower? in
        let heads = (group * 2..<group * 2 + 2).filter { map[$0] == head }
        return heads.isEmpty ? nil : Borrower(group: group, queryHeads: heads, weights: heads.map { _ in 1 })
      }
      return Loan(lender: lender, borrowers: borrowers)
    }
    let output = try backend.makeTensor(rows: count, columns: 8 * d)
    backend.attend(
      BorrowRequest(loans: loans, groups: [0, 1, 2, 3], shape: large.shape, type: type, output: output),
      segments: [largeCache.segment])
    let found = backend.read(output, rows: 0..<count)
    let rows = Dictionary(
      uniqueKeysWithValues: Set(map).map { head in
        (head, (0..<count).map { small.row(head: head, position: $0) })
      })
    for position in 0..<count {
      for head in 0..<8 {
        let expected = large.product(rows[map[head]]?[position] ?? [], group: head / 2)
        for c in 0..<d {
          let difference = abs(Double(found[(position * 8 + head) * d + c]) - expected[c])
          #expect(difference < tolerance, "\(smallType), \(type), row \(position), head \(head)")
        }
      }
    }
  }

  /// Rows kept by attention itself are those that are recomputed from what it leaves.
  @Test(arguments: InstructionSet.available, KVType.allCases)
  func keptRowsAreThoseRecomputed(set: InstructionSet, type: KVType) throws {
    // One long sequence, whose stretches are divided, or several short ones.
    for (count, sequences, rows) in [(900, 1, 1), (900, 1, 5), (130, 7, 3), (64, 7, 8), (65, 1, 2)] {
      let heads = Heads(Self.shape(type), positions: count, seed: 5, type: type)
      let cache = try Cache(heads, set: set, type: type)
      let backend = cache.backend
      let columns = heads.shape.queryHeads * heads.shape.headDimension
      let query = try cache.tensor(
        Array((0..<sequences).map { _ in heads.query.suffix(rows * columns) }.joined()), columns)
      let segments = (0..<sequences).map { index in
        AttentionSegment(
          rows: index * rows..<(index + 1) * rows, firstPosition: count - rows, keys: cache.segment.keys,
          values: cache.segment.values)
      }
      let logSumExp = try backend.makeTensor(rows: sequences * rows, columns: heads.shape.queryHeads)
      let needed = AttentionTiles.rowCount(segments.map { ($0.rows.count, $0.firstPosition) })
      let kept = try [0, 2, 4].map { (head: $0, tiles: try backend.makeTensor(rows: needed, columns: 64)) }
      for entry in kept { backend.write(Array(repeating: .nan, count: needed * 64), to: entry.tiles) }
      let request = AttentionRequest<CPUBackend>(
        query: query, shape: heads.shape, type: type, groups: [0, 1],
        output: try backend.makeTensor(rows: sequences * rows, columns: columns), logSumExp: logSumExp, kept: kept)
      backend.attend(request, segments: segments)
      for (head, tiles) in kept {
        let lender = LentHead<CPUBackend>(
          query: query, logSumExp: logSumExp, shape: heads.shape, type: type, head: head,
          keys: segments.map { $0.keys[head / heads.shape.groupSize] })
        let expected = try backend.probabilities(of: lender, segments: segments)
        #expect(
          backend.read(tiles, rows: 0..<needed) == backend.read(expected, rows: 0..<needed),
          "\(sequences) sequences of \(count), \(rows) rows, head \(head)")
      }
    }
  }
}
