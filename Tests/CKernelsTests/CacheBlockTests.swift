// Keys and values in blocks: GGUF's bytes, against PyPI `gguf` (make_fixtures.py), where they lie, and what is rounded.
import CKindredKernels
import Foundation
import Testing

extension Aligned {
  /// The scale and the quants of a block, as GGUF has them, of the key in `slot` of a page.
  func block(ofKeys type: kindred_type, slot: Int, column: Int, d: Int) -> [UInt8] {
    let quants = blockLayout(type).bytes - 2
    let blocks = pointer + (slot / 16 * d / 32 + column / 32) * 16 * (2 + quants)
    let scale = [0, 1].map { blocks.load(fromByteOffset: slot % 16 * 2 + $0, as: UInt8.self) }
    return scale + (0..<quants).map { blocks.load(fromByteOffset: 32 + $0 * 16 + slot % 16, as: UInt8.self) }
  }

  /// The same of the value.
  func block(ofValues type: kindred_type, slot: Int, column: Int, d: Int) -> [UInt8] {
    let quants = blockLayout(type).bytes - 2
    let blocks = pointer + (slot / 16 * d / 32 + column / 32) * 16 * (2 + quants)
    let scale = [0, 1].map { blocks.load(fromByteOffset: slot % 16 * 2 + $0, as: UInt8.self) }
    return scale + (0..<quants).map { blocks.load(fromByteOffset: 32 + slot % 16 * quants + $0, as: UInt8.self) }
  }

  func row(keyBlocks type: kindred_type, slot: Int, d: Int) -> [Float] {
    Self.read(type, stride(from: 0, to: d, by: 32).flatMap { block(ofKeys: type, slot: slot, column: $0, d: d) })
  }

  func row(valueBlocks type: kindred_type, slot: Int, d: Int) -> [Float] {
    Self.read(type, stride(from: 0, to: d, by: 32).flatMap { block(ofValues: type, slot: slot, column: $0, d: d) })
  }

  private static func read(_ type: kindred_type, _ blocks: [UInt8]) -> [Float] {
    var values = [Float](repeating: .nan, count: blocks.count / blockLayout(type).bytes * 32)
    kindred_dequantize(type, blocks, values.count, &values)
    return values
  }
}

@Suite struct CacheBlockTests {
  /// A page of keys and one of values with `row` in a slot; every other byte is 0x5a.
  static func stored(
    _ row: [Float], _ type: kindred_type, slot: Int, by set: InstructionSet
  ) -> (keys: Aligned, values: Aligned) {
    let bytes = 64 * row.count / 32 * blockLayout(type).bytes
    let pages = (Aligned(bytes: bytes), Aligned(bytes: bytes))
    for page in [pages.0, pages.1] { memset(page.pointer, 0x5a, bytes) }
    set.kernels.store_key(type, row, row.count, slot, pages.0.pointer)
    set.kernels.store_value(type, row, row.count, slot, pages.1.pointer)
    return pages
  }

  @Test(arguments: InstructionSet.available)
  func blocksAreThoseOfTheReference(_ set: InstructionSet) throws {
    let url = try #require(Bundle.module.url(forResource: "Fixtures/quantized", withExtension: "bin"))
    let data = [UInt8](try Data(contentsOf: url))
    func word(_ offset: Int) -> UInt32 { data[offset..<offset + 4].reversed().reduce(0) { $0 << 8 | UInt32($1) } }
    var offset = 0
    for type in blockTypes {
      #expect(word(offset) == type.rawValue)
      let count = Int(word(offset + 4))
      let start = offset + 8 + 4 * count
      let values = (0..<count).map { Float(bitPattern: word(offset + 8 + 4 * $0)) }
      let bytes = blockLayout(type).bytes
      for (slot, d) in [(0, 32), (17, 64), (63, 128)] {
        for first in Swift.stride(from: 0, to: count, by: d) {
          let pages = Self.stored(Array(values[first..<first + d]), type, slot: slot, by: set)
          for column in Swift.stride(from: 0, to: d, by: 32) {
            let expected = Array(data[(start + (first + column) / 32 * bytes)...].prefix(bytes))
            #expect(pages.keys.block(ofKeys: type, slot: slot, column: column, d: d) == expected)
            #expect(pages.values.block(ofValues: type, slot: slot, column: column, d: d) == expected)
          }
        }
      }
      offset = start + count / 32 * bytes
    }
    #expect(offset == data.count)
  }

  @Test(arguments: InstructionSet.available, blockTypes.map(\.rawValue))
  func othersAreLeftAlone(_ set: InstructionSet, _ rawType: UInt32) {
    let type = kindred_type(rawValue: rawType)
    var random = Random(seed: 70)
    let d = 96
    for slot in [0, 15, 16, 40, 63] {
      let pages = Self.stored(random.values(d), type, slot: slot, by: set)
      for other in 0..<64 where other != slot {
        for column in [0, 32, 64] {
          #expect(pages.keys.block(ofKeys: type, slot: other, column: column, d: d).allSatisfy { $0 == 0x5a })
          #expect(pages.values.block(ofValues: type, slot: other, column: column, d: d).allSatisfy { $0 == 0x5a })
        }
      }
    }
  }

  /// Half a step, and half a step of the scale as F16, which may be subnormal, at the largest quant.
  @Test(arguments: InstructionSet.available, blockTypes.map(\.rawValue))
  func elementsAreRoundedToTheNearest(_ set: InstructionSet, _ rawType: UInt32) {
    let type = kindred_type(rawValue: rawType)
    let largest: Float = type == KINDRED_Q8_0 ? 127 : 8
    var random = Random(seed: 71)
    for magnitude: Float in [1e-3, 1, 300] {
      for _ in 0..<50 {
        let row = random.values(64, in: -magnitude...magnitude)
        let found = Self.stored(row, type, slot: 5, by: set).values.row(valueBlocks: type, slot: 5, d: 64)
        for first in [0, 32] {
          let step = row[first..<first + 32].map(\.magnitude).max()! / largest
          for c in first..<first + 32 {
            // In Q4_0 the side of the largest magnitude reaches −8, the other one only 7.
            let steps: Float = type == KINDRED_Q4_0 && row[c].magnitude > 7 * step ? 1 : 0.5
            #expect(abs(found[c] - row[c]) <= step * (steps + 1e-3) + largest * max(step / 2048, 0x1p-25))
          }
        }
      }
    }
  }

  /// What is not finite takes its block with it and no other; what is almost 0 is 0.
  @Test(arguments: InstructionSet.available, blockTypes.map(\.rawValue))
  func extremeElementsAreStored(_ set: InstructionSet, _ rawType: UInt32) {
    let type = kindred_type(rawValue: rawType)
    let ordinary = (0..<32).map { Float($0) / 8 }
    for bad in [Float.nan, .infinity, -.infinity] {
      for place in [0, 13, 31] {
        var row = ordinary + ordinary
        row[32 + place] = bad
        let pages = Self.stored(row, type, slot: 20, by: set)
        for found in [
          pages.keys.row(keyBlocks: type, slot: 20, d: 64), pages.values.row(valueBlocks: type, slot: 20, d: 64),
        ] {
          #expect(found[..<32].allSatisfy(\.isFinite) && found[32...].allSatisfy(\.isNaN), "\(bad) at \(place)")
        }
      }
    }
    for small: Float in [0, -0.0, 0x1p-149, 1e-30] {
      let row = [Float](repeating: small, count: 31) + [-small]
      let found = Self.stored(row, type, slot: 0, by: set).values.row(valueBlocks: type, slot: 0, d: 32)
      #expect(found.allSatisfy { $0 == 0 }, "\(small)")
    }
    // A scale beyond F16 is infinite.
    let large = [Float](repeating: 3e38, count: 32)
    #expect(!Self.stored(large, type, slot: 0, by: set).values.row(valueBlocks: type, slot: 0, d: 32)[3].isFinite)
  }
}
