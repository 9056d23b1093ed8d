// A profiling backend against the one it profiles: the same values, and each operation noted.

import KindredCompute
import Testing

/// One layer's operations, each once, on any backend.
private struct Layer<B: Backend> {
  static var shape: AttentionShape { AttentionShape(queryHeads: 4, kvHeads: 2, headDimension: 16) }
  static var rows: Int { 3 }
  let backend: B

  func random(_ count: Int, seed: UInt64) -> [Float] {
    var state = seed
    return (0..<count).map { _ in
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return Float(Int64(bitPattern: state) >> 40) / Float(1 << 23)
    }
  }

  func tensor(_ columns: Int, seed: UInt64, rows: Int = Self.rows) throws -> B.Tensor {
    let tensor = try backend.makeTensor(rows: rows, columns: columns)
    backend.write(random(rows * columns, seed: seed), to: tensor)
    return tensor
  }

  func matrix(_ outputs: Int, _ inputs: Int, seed: UInt64) throws -> B.Matrix {
    try random(outputs * inputs, seed: seed).withUnsafeBytes { bytes in
      try backend.makeMatrix(type: .f32, rows: outputs, columns: inputs, bytes: bytes)
    }
  }

  /// All that the operations leave.
  func run() throws -> [[Float]] {
    let shape = Self.shape
    let rows = Self.rows
    let hidden = try tensor(64, seed: 1)
    let weight = try tensor(64, seed: 2, rows: 1)
    let headWeight = try tensor(16, seed: 3, rows: 1)
    let input = try backend.makeActivations(rows: rows, columns: 64)
    let gated = try backend.makeActivations(rows: rows, columns: 64)
    let query = try backend.makeTensor(rows: rows, columns: 64)
    let key = try backend.makeTensor(rows: rows, columns: 32)
    let bias = try tensor(64, seed: 4, rows: 1)
    backend.normalize(hidden, rows: rows, weight: weight, epsilon: 1e-5, into: input)
    backend.multiply(
      input, rows: rows,
      [
        Product(try matrix(64, 64, seed: 5), bias: bias, into: query),
        Product(try matrix(32, 64, seed: 6), into: key, precision: .int8),
      ])
    backend.normalizeHeads(query, rows: rows, weight: headWeight, epsilon: 1e-5)
    let angles = RotaryAngles(positions: [0, 1, 2], frequencies: [1, 0.5, 0.25, 0.1], interleaved: false)
    backend.rotate(query, heads: 4, by: angles)
    backend.rotate(key, heads: 2, by: angles)
    func pages() throws -> [[B.Page]] { try (0..<2).map { _ in [try backend.makePage(headDimension: 16, type: .f16)] } }
    let segment = AttentionSegment(rows: 0..<rows, firstPosition: 0, keys: try pages(), values: try pages())
    backend.store(key, as: .keys, in: [segment], type: .f16)
    backend.store(key, as: .values, in: [segment], type: .f16)
    let attended = try backend.makeTensor(rows: rows, columns: 64)
    let logSumExp = try backend.makeTensor(rows: rows, columns: 4)
    backend.attend(
      AttentionRequest(
        query: query, shape: shape, type: .f16, groups: [0, 1], output: attended, logSumExp: logSumExp),
      segments: [segment])
    var lender = LentHead<B>(
      query: query, logSumExp: logSumExp, shape: shape, type: .f16, head: 1, keys: [segment.keys[0]])
    let tiles = try backend.probabilities(of: lender, segments: [segment])
    lender.tiles = tiles
    let borrowed = try backend.makeTensor(rows: rows, columns: 64)
    backend.attend(
      BorrowRequest(
        loans: [Loan(lender: lender, borrowers: [Borrower(group: 1, queryHeads: [2, 3], weights: [1, 1])])],
        groups: [1], shape: shape, type: .f16,
        output: borrowed),
      segments: [segment])
    backend.prepare(attended, rows: rows, into: input)
    backend.multiply(input, rows: rows, [Product(try matrix(64, 64, seed: 7), into: hidden, accumulates: true)])
    let down = Product<B>(try matrix(64, 64, seed: 8), into: query)
    backend.gatedProduct(
      input, rows: rows, gate: Product(try matrix(64, 64, seed: 9), into: hidden),
      up: Product(try matrix(64, 64, seed: 10), into: query), into: gated, for: down)
    backend.multiply(gated, rows: rows, [down])
    let last = try backend.makeTensor(rows: 1, columns: 64)
    backend.gather([2], of: query, into: last, at: 0)
    return [hidden, query, key, attended, logSumExp, tiles, borrowed].map { backend.read($0, rows: 0..<rows) }
      + [backend.read(last, rows: 0..<1)]
  }
}

@Suite struct ProfilingBackendTests {
  @Test func resultsAreTheOtherBackendsBitForBit() throws {
    let backend = try CPUBackend(threads: 2)
    let profiling = ProfilingBackend(backend)
    #expect(profiling.configuration == backend.configuration)
    let expected = try Layer(backend: backend).run()
    #expect(try Layer(backend: profiling).run() == expected)
    #expect(expected.allSatisfy { $0.contains { $0 != 0 } && $0.allSatisfy(\.isFinite) })
  }

  @Test func everyOperationIsNoted() throws {
    let profiling = ProfilingBackend(try CPUBackend(threads: 2))
    _ = try Layer(backend: profiling).run()
    let profile = profiling.takeProfile()
    let calls = profile.entries.mapValues(\.calls)
    for (operation, count) in [
      (ProfiledOperation.pack, 6), (.normalize, 1), (.normalizeHeads, 1), (.prepare, 1), (.rotate, 2),
      (.storeKeys, 1), (.storeValues, 1), (.attend, 1), (.probabilities, 1), (.borrow, 1),
    ] {
      #expect(calls[operation] == count, "\(operation)")
    }
    #expect(calls[.allocate] ?? 0 > 0 && calls[.copy] ?? 0 > 0)
    let products = profile.entries.compactMap { operation, entry in
      if case .multiply(let products) = operation { (products, entry.rows) } else { nil }
    }
    #expect(products.count == 4)
    #expect(products.allSatisfy { $0.1 == Layer<CPUBackend>.rows })
    let pair = try #require(products.first { $0.0.count == 2 && $0.0[1].matrix.outputs == 32 }?.0)
    #expect(pair.map(\.matrix.outputs) == [64, 32] && pair.map(\.matrix.inputs) == [64, 64])
    #expect(pair.allSatisfy { $0.matrix.byteCount >= $0.matrix.outputs * $0.matrix.inputs * 4 && !$0.accumulates })
    #expect(products.contains { $0.0.first?.accumulates == true })
    #expect(profile.entries.values.allSatisfy { $0.seconds >= 0 } && profile.seconds > 0)
    #expect(profiling.takeProfile().entries.isEmpty)
  }
}
