// The kernels on rows of activations: norm, quantisation, rotation, SiLU, scaling.
import CKindredKernels
import Foundation
import Testing

@Suite struct ActivationTests {
  static let sizes = [1, 2, 15, 16, 17, 31, 32, 33, 48, 64, 100, 896]

  @Test(arguments: InstructionSet.available)
  func rmsNormEqualsItsDefinition(_ set: InstructionSet) {
    for n in Self.sizes {
      var random = Random(seed: 20)
      let (x, weight) = (random.values(n, in: -3...3), random.values(n))
      let squares = x.reduce(0.0) { $0 + Double($1) * Double($1) }
      let factor = 1 / (squares / Double(n) + 1e-5).squareRoot()
      var y = [Float](repeating: .nan, count: n)
      set.kernels.rms_norm(x, weight, 1e-5, n, &y)
      for i in 0..<n { #expect(abs(Double(y[i]) - Double(x[i]) * factor * Double(weight[i])) < 2e-6) }
      y = x
      y.withUnsafeMutableBufferPointer { set.kernels.rms_norm($0.baseAddress, nil, 1e-5, n, $0.baseAddress) }
      for i in 0..<n { #expect(abs(Double(y[i]) - Double(x[i]) * factor) < 4e-6) }
    }
  }

  @Test(arguments: InstructionSet.available)
  func quantizeRoundsToNearestEven(_ set: InstructionSet) {
    for n in Self.sizes {
      var random = Random(seed: 21)
      var x = random.values(n, in: -3...3)
      for largest in [127, 127 * 256] as [Float] {
        // A block whose scale is exactly 1, with ties, and of 16 bits with a low part of −128.
        let edges = [largest, 0.5, 1.5, -2.5, 0.5 - largest] + (largest > 127 ? [128] : [])
        for (i, value) in edges.enumerated() where i < n { x[i] = value }
        let a = Activations(x, columns: n, by: set, wide: largest > 127)
        for k in 0..<a.padded {
          let block = x[min(k / 32 * 32, n)..<min(k / 32 * 32 + 32, n)]
          let scale = (block.map(abs).max() ?? 0) / largest
          var expected = k < n && scale > 0 ? Int((x[k] * (1 / scale)).rounded(.toNearestOrEven)) : 0
          // The only low part that is left out.
          if largest > 127, (expected + 128) % 256 == 0 { expected += 1 }
          #expect(a.blocks[k / 32].scale == scale)
          #expect(a.integer(0, k) == expected, "\(k) of \(n)")
          #expect(a.low.map { $0[k] >= -127 } ?? true)
        }
        for block in 0..<a.padded / 32 {
          let integers = (block * 32..<block * 32 + 32).map { a.integer(0, $0) }
          let found = a.blocks[block]
          #expect(Int(found.sum) == integers.reduce(0, +))
          if largest > 127 {
            #expect(Int(found.halves.0) == integers[..<16].reduce(0, +))
            #expect(Int(found.halves.1) == integers[16...].reduce(0, +))
          } else {
            let pairs = [found.pairs.0.0, found.pairs.0.1, found.pairs.1.0, found.pairs.1.1]
            for (i, pair) in pairs.enumerated() {
              let columns = (0..<16).filter { $0 / 2 % 2 == i % 2 }.map { i / 2 * 16 + $0 }
              #expect(Int(pair) == columns.reduce(0) { $0 + integers[$1] })
            }
          }
        }
      }
    }
  }

  @Test(arguments: InstructionSet.available)
  func quantizeTakesZerosSubnormalsAndBadValues(_ set: InstructionSet) {
    for value in [0, 0x1p-149, 1e-38, -3e38, .infinity, .nan] as [Float] {
      var x = [Float](repeating: 0, count: 64)
      x[5] = value
      for wide in [false, true] {
        let a = Activations(x, columns: 64, by: set, wide: wide)
        #expect(a.blocks[0].scale.isFinite == value.isFinite)
        let error = abs(a.value(0, 5, quantized: true) - Double(value))
        // Half of the largest that counts as 0.
        let lost = wide ? 4e-34 : 2e-36
        #expect(error <= abs(Double(value)) * 1e-6 + lost || !value.isFinite)
        #expect((0..<64).allSatisfy { $0 == 5 || a.integer(0, $0) == 0 })
        #expect(a.blocks[1].scale == 0)
      }
    }
  }

  @Test(arguments: InstructionSet.available)
  func rotateTurnsEachPair(_ set: InstructionSet) {
    for n in [2, 4, 16, 20, 32, 48, 64, 66, 128] {
      for interleaved in [false, true] {
        var random = Random(seed: 22)
        let x = random.values(n)
        let angles = random.values(n / 2, in: -4...4)
        var y = x
        set.kernels.rotate(&y, n, angles.map { cos($0) }, angles.map { sin($0) }, interleaved)
        for i in 0..<n / 2 {
          let (first, second) = interleaved ? (2 * i, 2 * i + 1) : (i, i + n / 2)
          let angle = Double(angles[i])
          let real = Double(x[first]) * cos(angle) - Double(x[second]) * sin(angle)
          let imaginary = Double(x[first]) * sin(angle) + Double(x[second]) * cos(angle)
          #expect(abs(Double(y[first]) - real) < 1e-6)
          #expect(abs(Double(y[second]) - imaginary) < 1e-6)
        }
      }
    }
  }

  @Test(arguments: InstructionSet.available)
  func siluMultiplyEqualsItsDefinition(_ set: InstructionSet) {
    for n in Self.sizes {
      var random = Random(seed: 23)
      var gate = random.values(n, in: -20...20)
      gate[0] = -1e30
      let up = random.values(n)
      var out = gate
      out.withUnsafeMutableBufferPointer {
        set.kernels.silu_multiply($0.baseAddress, up, n, $0.baseAddress)
      }
      for i in 0..<n {
        let expected = Double(gate[i]) / (1 + exp(-Double(gate[i]))) * Double(up[i])
        #expect(abs(Double(out[i]) - expected) <= abs(expected) * 5e-7 + 1e-30, "\(gate[i])")
      }
    }
    var out: [Float] = [.nan, 100, .infinity]
    set.kernels.silu_multiply(out, [1, 1, 1], 3, &out)
    #expect(out[0].isNaN && out[1] == 100 && out[2] == .infinity)
  }

  @Test(arguments: InstructionSet.available)
  func scaleMultipliesEachElement(_ set: InstructionSet) {
    for n in Self.sizes {
      var random = Random(seed: 24)
      let x = random.values(n)
      var y = x + [9]
      set.kernels.scale(&y, n, 0.3)
      #expect(y == x.map { $0 * 0.3 } + [9])
    }
  }
}
