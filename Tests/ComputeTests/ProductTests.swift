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
}
