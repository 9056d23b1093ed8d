// GGUF blocks read as float, against PyPI `gguf` (make_fixtures.py), and panel sizes.
import CKindredKernels
import Foundation
import Testing

@Suite struct DequantizeTests {
  /// One type's random blocks and what the reference read from them.
  struct Sample {
    let type: kindred_type
    let source: [UInt8]
    let values: [Float]
  }

  static func samples() throws -> [Sample] {
    let url = try #require(Bundle.module.url(forResource: "Fixtures/dequantized", withExtension: "bin"))
    let data = [UInt8](try Data(contentsOf: url))
    func word(_ offset: Int) -> UInt32 {
      data[offset..<offset + 4].reversed().reduce(0) { $0 << 8 | UInt32($1) }
    }
    var samples: [Sample] = []
    var offset = 0
    while offset < data.count {
      let (count, bytes) = (Int(word(offset + 4)), Int(word(offset + 8)))
      let values = offset + 12 + bytes
      samples.append(
        Sample(
          type: kindred_type(rawValue: word(offset)), source: Array(data[offset + 12..<values]),
          values: (0..<count).map { Float(bitPattern: word(values + 4 * $0)) }))
      offset = values + 4 * count
    }
    return samples
  }

  @Test func everyQuantisedTypeEqualsTheReference() throws {
    let samples = try Self.samples()
    #expect(samples.map(\.type.rawValue) == quantizedTypes.map(\.rawValue))
    for sample in samples {
      var values = [Float](repeating: .nan, count: sample.values.count)
      kindred_dequantize(sample.type, sample.source, values.count, &values)
      #expect(values == sample.values, "type \(sample.type.rawValue)")
    }
  }

  @Test func everyHalfPrecisionNumberIsRead() {
    let source = (0...UInt16.max).map { $0 }
    var halves = [Float](repeating: 0, count: source.count)
    var brains = halves
    kindred_dequantize(KINDRED_F16, source, source.count, &halves)
    kindred_dequantize(KINDRED_BF16, source, source.count, &brains)
    for bits in source {
      let value = halves[Int(bits)]
      #expect(Self.half(bits) == value || value.isNaN && bits & 0x7fff > 0x7c00)
      #expect(brains[Int(bits)].bitPattern == UInt32(bits) << 16)
    }
  }

  /// A half-precision number by definition.
  static func half(_ bits: UInt16) -> Float {
    let exponent = Int(bits >> 10 & 31)
    let fraction = Float(bits & 0x3ff) / 1024
    let sign: Float = bits >> 15 == 1 ? -1 : 1
    if exponent == 31 { return fraction == 0 ? sign * .infinity : .nan }
    if exponent == 0 { return sign * fraction * 0x1p-14 }
    return sign * Float(sign: .plus, exponent: exponent - 15, significand: 1 + fraction)
  }

  @Test func panelsTakeAboutTheBytesOfTheFile() {
    for type in quantizedTypes + denseTypes {
      let layout = blockLayout(type)
      let file = 512 / layout.columns * layout.bytes * 32
      let panel = kindred_panel_bytes(type, 512)
      #expect(panel % 64 == 0)
      #expect(panel >= file && Double(panel) < Double(file) * 1.04, "type \(type.rawValue)")
      #expect(layout.columns == 1 || kindred_panel_bytes(type, 512 + layout.columns / 2) == 0)
    }
    #expect(kindred_panel_bytes(kindred_type(rawValue: 99), 256) == 0)
  }
}
