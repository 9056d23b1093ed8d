// Products that share rows: what one makes ready of them must not mislead the next.

import KindredCompute
import Testing

@Suite struct ProductTests {
  /// A quantised and a dense bf16 matrix need different forms of the same rows, in either order, for few rows and many.
  @Test(arguments: InstructionSet.available, [3, 20, 130])
  func typesMayFollowEachOther(set: InstructionSet, rows: Int) throws {
    let backend = try CPUBackend(threads: 2, instructionSet: set)
    let columns = 64
    func matrix(_ type: TensorType, _ bytes: [UInt8]) throws -> CPUBackend.Matrix {
      try bytes.withUnsafeBytes { try backend.makeMatrix(type: type, rows: 32, columns: columns, bytes: $0) }
    }
    // bf16 of 1.0 to 1.99; blocks of 32 int8 with the scale 2^-6 as f16.
    var denseBytes: [UInt8] = []
    for index in 0..<32 * columns { denseBytes += [UInt8(index * 37 % 128) | 0x80, 0x3f] }
    var blocks: [UInt8] = []
    for block in 0..<64 {
      blocks += [0, 0x24]
      for index in 0..<32 { blocks.append(UInt8((block * 32 + index) * 29 % 256)) }
    }
    let dense = try matrix(.bf16, denseBytes)
    let quantised = try matrix(.q8_0, blocks)
    let values: [Float] = (0..<rows * columns).map { index in Float(index * 7919 % 2003) / 1001 - 1 }
    let hidden = try backend.makeTensor(rows: rows, columns: columns)
    backend.write(values, to: hidden)

    func products(_ order: [CPUBackend.Matrix], into activations: CPUBackend.Activations) throws -> [[Float]] {
      backend.prepare(hidden, rows: rows, into: activations)
      return try order.map { matrix in
        let output = try backend.makeTensor(rows: rows, columns: 32)
        backend.multiply(activations, rows: rows, [Product(matrix, into: output)])
        return backend.read(output, rows: 0..<rows)
      }
    }
    func fresh() throws -> CPUBackend.Activations { try backend.makeActivations(rows: rows, columns: columns) }
    let alone = try [dense, quantised].map { try products([$0], into: fresh())[0] }
    #expect(alone.allSatisfy { $0.contains { $0 != 0 } && $0.allSatisfy(\.isFinite) })
    #expect(try products([dense, quantised], into: fresh()) == alone)
    #expect(try products([quantised, dense], into: fresh()) == alone.reversed())
    let reused = try fresh()
    _ = try products([quantised], into: reused)
    #expect(try products([quantised, dense], into: reused) == alone.reversed())
  }

  /// Q8_0 of the shape, with scales of 2^-6 and quants that depend on `seed`.
  func matrix<B: Backend>(_ backend: B, rows: Int, columns: Int, seed: Int) throws -> B.Matrix {
    var bytes: [UInt8] = []
    for block in 0..<rows * columns / 32 {
      bytes += [0, 0x24]
      for index in 0..<32 { bytes.append(UInt8((block * 32 + index + seed) * (29 + 2 * seed) % 251)) }
    }
    return try bytes.withUnsafeBytes { try backend.makeMatrix(type: .q8_0, rows: rows, columns: columns, bytes: $0) }
  }

  /// Only many rows, of products that bear it, meet rounded weights, which differ a little; profiling changes nothing.
  @Test(arguments: InstructionSet.available, [63, 64])
  func onlyManyRowsMeetRoundedWeights(set: InstructionSet, rows: Int) throws {
    let backend = try CPUBackend(threads: 2, instructionSet: set)
    func product<B: Backend>(_ backend: B, _ matrix: B.Matrix, roundsWeights: Bool) throws -> [Float] {
      let hidden = try backend.makeTensor(rows: rows, columns: 288)
      backend.write((0..<rows * 288).map { Float($0 * 7919 % 2003) / 1001 - 1 }, to: hidden)
      let input = try backend.makeActivations(rows: rows, columns: 288)
      backend.prepare(hidden, rows: rows, into: input)
      let output = try backend.makeTensor(rows: rows, columns: 33)
      backend.multiply(
        input, rows: rows, [Product(matrix, into: output, precision: .int8, roundsWeights: roundsWeights)])
      return backend.read(output, rows: 0..<rows)
    }
    let weights = try matrix(backend, rows: 33, columns: 288, seed: 1)
    let exact = try product(backend, weights, roundsWeights: false)
    let rounded = try product(backend, weights, roundsWeights: true)
    #expect((rounded != exact) == (set == .avx512 && rows == 64))
    let largest = exact.reduce(0) { max($0, abs($1)) }
    #expect(zip(rounded, exact).allSatisfy { abs($0 - $1) < 0.01 * largest })
    let profiling = ProfilingBackend(backend)
    #expect(
      try product(profiling, matrix(profiling, rows: 33, columns: 288, seed: 1), roundsWeights: true) == rounded)
  }

  /// down(silu(gate(x)) · up(x)) of the first `rows` rows of `values`.
  func feedForward(_ backend: CPUBackend, _ values: [Float], rows: Int) throws -> [Float] {
    let (columns, hidden) = (64, 160)
    let input = try backend.makeTensor(rows: rows, columns: columns)
    backend.write(Array(values.prefix(rows * columns)), to: input)
    let activations = try backend.makeActivations(rows: rows, columns: columns)
    backend.prepare(input, rows: rows, into: activations)
    func product(_ seed: Int, _ precision: ActivationPrecision) throws -> Product<CPUBackend> {
      Product<CPUBackend>(
        try matrix(backend, rows: hidden, columns: columns, seed: seed),
        into: try backend.makeTensor(rows: rows, columns: hidden), precision: precision)
    }
    let gated = try backend.makeActivations(rows: rows, columns: hidden)
    let output = try backend.makeTensor(rows: rows, columns: columns)
    let down = Product<CPUBackend>(try matrix(backend, rows: columns, columns: hidden, seed: 3), into: output)
    backend.gatedProduct(
      activations, rows: rows, gate: try product(1, .int8), up: try product(2, .int16), into: gated, for: down)
    backend.multiply(gated, rows: rows, [down])
    return backend.read(output, rows: 0..<rows)
  }

  /// Numbers of rows between two changes of how activations are rounded give the same bits, whether gate and up are
  /// joined or not; across a change results stay close.
  @Test(arguments: InstructionSet.available)
  func rowsAgreeWithinAClass(set: InstructionSet) throws {
    let backend = try CPUBackend(threads: 2, instructionSet: set)
    let values: [Float] = (0..<600 * 64).map { index in Float(index * 7919 % 2003) / 1001 - 1 }
    let few = try feedForward(backend, values, rows: 15)
    let some = try feedForward(backend, values, rows: 63)
    let many = try feedForward(backend, values, rows: 600)
    // Not by #expect itself, which looks for what differs in so many numbers for minutes.
    func begins(_ all: [Float], with part: [Float]) -> Bool { Array(all.prefix(part.count)) == part }
    #expect(begins(few, with: try feedForward(backend, values, rows: 2)))
    #expect(begins(some, with: try feedForward(backend, values, rows: 16)))
    #expect(begins(many, with: try feedForward(backend, values, rows: 64)))
    #expect(begins(many, with: try feedForward(backend, values, rows: 128)))
    let power = some.reduce(0) { $0 + $1 * $1 } / Float(some.count)
    for other in [few, Array(many.prefix(some.count))] {
      let error = zip(other, some).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) } / Float(other.count)
      #expect(error < 1e-3 * power && power > 0)
    }
    if set != .amx { #expect(begins(some, with: few)) }
  }
}
