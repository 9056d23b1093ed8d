// The kernels of paged attention against their definitions in double precision.
import CKindredKernels
import Foundation
import Testing

@Suite struct AttentionTests {
  static let types = (denseTypes + blockTypes).map(\.rawValue)
  static let batches = [1, 2, 3, 5, 6, 7, 9, 16]

  static func headSizes(_ type: kindred_type) -> [Int] {
    blockTypes.contains(type) ? [32, 64, 96, 128, 160] : [1, 15, 20, 48, 64, 100, 128]
  }

  /// A page of 64 keys and values, as they are stored.
  struct Page {
    let keys: Aligned
    let values: Aligned
    let key: [[Float]]
    let value: [[Float]]

    init(_ type: kindred_type, d: Int, set: InstructionSet) {
      var random = Random(seed: 30)
      // Exact in every type but those of blocks.
      func rows() -> [[Float]] {
        (0..<64).map { _ in random.values(d, in: -64...64).map { $0.rounded() / 32 } }
      }
      let (key, value) = (rows(), rows())
      let (keys, values) = (Aligned(bytes: 64 * d * 4), Aligned(bytes: 64 * d * 4))
      for slot in 0..<64 {
        set.kernels.store_key(type, key[slot], d, slot, keys.pointer)
        set.kernels.store_value(type, value[slot], d, slot, values.pointer)
      }
      let isBlocks = blockTypes.contains(type)
      (self.keys, self.values) = (keys, values)
      self.key = isBlocks ? (0..<64).map { keys.row(keyBlocks: type, slot: $0, d: d) } : key
      self.value = isBlocks ? (0..<64).map { values.row(valueBlocks: type, slot: $0, d: d) } : value
    }
  }

  @Test(arguments: InstructionSet.available, denseTypes.map(\.rawValue))
  func storedElementsRoundToNearestEven(_ set: InstructionSet, _ rawType: UInt32) {
    let type = kindred_type(rawValue: rawType)
    let source: [Float] = [
      1, -1.0009765, 1.00048828125, 1.00146484375, 65519, 65520, -1e30, .infinity, 6e-8, 2.9e-8, 0x1p-25,
      0x1p-149, 0, -0.0, 3.0e-5, 6.1e-5, 1.00390625, 1.01171875, 3.4e38, .nan,
    ]
    let d = source.count
    let page = Aligned(bytes: 64 * d * 4)
    set.kernels.store_key(type, source, d, 37, page.pointer)
    let values = Aligned(bytes: 64 * d * 4)
    set.kernels.store_value(type, source, d, 3, values.pointer)
    for (c, x) in source.enumerated() {
      let keyIndex = (37 / 16 * d + c) * 16 + 37 % 16
      if type == KINDRED_F32 {
        let key = page.pointer.load(fromByteOffset: keyIndex * 4, as: UInt32.self)
        #expect(key == x.bitPattern)
        #expect(values.pointer.load(fromByteOffset: (3 * d + c) * 4, as: UInt32.self) == x.bitPattern)
        continue
      }
      let key = page.pointer.load(fromByteOffset: keyIndex * 2, as: UInt16.self)
      #expect(values.pointer.load(fromByteOffset: (3 * d + c) * 2, as: UInt16.self) == key)
      if x.isNaN {
        #expect(key & 0x7fff > (type == KINDRED_F16 ? 0x7c00 : 0x7f80))
      } else if type == KINDRED_F16 {
        #expect(Float(DequantizeTests.half(key)) == Self.nearestHalf(x), "\(x)")
      } else {
        let rest = x.bitPattern & 0xffff
        let down = UInt16(x.bitPattern >> 16)
        let up = rest > 0x8000 || rest == 0x8000 && down & 1 == 1
        #expect(key == down + (up ? 1 : 0) || x.magnitude < 1.2e-38 && key & 0x7fff == 0, "\(x)")
      }
    }
  }

  /// The half-precision number nearest to x, ties to even, by search.
  static func nearestHalf(_ x: Float) -> Float {
    if x.magnitude >= 65520 { return x.sign == .minus ? -.infinity : .infinity }
    let errors = (0..<UInt16(0x7c00)).map { abs(Double(DequantizeTests.half($0)) - Double(x.magnitude)) }
    let least = errors.min()!
    let nearest = errors.indices.filter { errors[$0] == least }
    let best = nearest.first { $0.isMultiple(of: 2) } ?? nearest[0]
    return DequantizeTests.half(UInt16(best)) * (x.sign == .minus ? -1 : 1)
  }

  @Test(arguments: InstructionSet.available, types)
  func scoresEqualTheirDefinition(_ set: InstructionSet, _ rawType: UInt32) {
    let type = kindred_type(rawValue: rawType)
    for d in Self.headSizes(type) {
      let page = Page(type, d: d, set: set)
      var random = Random(seed: 31)
      let stride = d + 3
      let q = random.values(16 * stride)
      var whole: [Float] = []
      for m in Self.batches.reversed() {
        for count in [64, 1, 16, 17, 33, 49] {
          var s = [Float](repeating: -9, count: m * 64 + 1)
          set.kernels.scores(type, q, stride, m, d, page.keys.pointer, count, 0.125, &s)
          if m == 16 && count == 64 { whole = s }
          #expect(s[m * 64] == -9)
          for i in 0..<m {
            #expect(sameBits(Array(s[i * 64..<i * 64 + count]), Array(whole[i * 64..<i * 64 + count])))
            #expect(s[(i * 64 + (count + 15) / 16 * 16)..<(i + 1) * 64].allSatisfy { $0 == -9 })
          }
        }
      }
      for i in 0..<16 {
        for j in 0..<64 {
          let sum = (0..<d).reduce(0.0) { $0 + Double(q[i * stride + $1]) * Double(page.key[j][$1]) }
          #expect(abs(Double(whole[i * 64 + j]) - sum / 8) < 5e-6)
        }
      }
    }
  }

  @Test(arguments: InstructionSet.available, types)
  func accumulateEqualsItsDefinition(_ set: InstructionSet, _ rawType: UInt32) {
    let type = kindred_type(rawValue: rawType)
    for d in Self.headSizes(type) {
      let page = Page(type, d: d, set: set)
      var random = Random(seed: 32)
      let stride = d + 3
      let p = random.values(16 * 64)
      let before = random.values(16 * stride)
      for count in [64, 1, 17, 33] {
        var whole: [Float] = []
        for m in Self.batches.reversed() {
          var o = before
          set.kernels.accumulate(type, p, m, page.values.pointer, count, d, &o, stride)
          if m == 16 { whole = o }
          #expect(sameBits(Array(o[..<(m * stride)]), Array(whole[..<(m * stride)])))
          #expect(sameBits(Array(o[(m * stride)...]), Array(before[(m * stride)...])))
        }
        for i in 0..<16 {
          let rest = i * stride + d..<(i + 1) * stride
          #expect(sameBits(Array(whole[rest]), Array(before[rest])))
          for c in 0..<d {
            let sum = (0..<count).reduce(Double(before[i * stride + c])) {
              $0 + Double(p[i * 64 + $1]) * Double(page.value[$1][c])
            }
            #expect(abs(Double(whole[i * stride + c]) - sum) < 2e-5)
          }
        }
      }
    }
  }

  @Test(arguments: InstructionSet.available)
  func softmaxOverPagesEqualsSoftmaxAtOnce(_ set: InstructionSet) {
    var random = Random(seed: 33)
    let sizes = [64, 1, 15, 64, 17, 33]
    let pages = sizes.map { _ in random.values(64, in: -30...30) }
    var (maximum, sum) = (-Float.infinity, Float(0))
    var total = 0.0
    for (page, valid) in zip(pages, sizes) {
      var s = page
      let old = maximum
      let factor = set.kernels.softmax_step(&s, valid, &maximum, &sum)
      let expected = max(old, page[..<valid].max()!)
      #expect(maximum == expected)
      #expect(abs(Double(factor) - exp(Double(old - expected))) < 3e-7)
      for j in 0..<64 {
        let value = j < valid ? exp(Double(page[j] - expected)) : 0
        #expect(abs(Double(s[j]) - value) <= value * 3e-7 + 1e-45)
      }
      total += page[..<valid].reduce(0) { $0 + exp(Double($1)) }
    }
    #expect(abs(Double(sum) * exp(Double(maximum)) / total - 1) < 2e-6)
    var shifted = pages[0]
    set.kernels.exp_shifted(&shifted, 50, maximum + log(sum))
    for j in 0..<64 {
      let value = j < 50 ? exp(Double(pages[0][j] - (maximum + log(sum)))) : 0
      #expect(abs(Double(shifted[j]) - value) <= value * 3e-7 + 1e-45)
    }
  }

  @Test(arguments: InstructionSet.available)
  func softmaxTakesInfinityAndNaN(_ set: InstructionSet) {
    var (maximum, sum) = (-Float.infinity, Float(0))
    var s = [Float](repeating: -.infinity, count: 64)
    #expect(set.kernels.softmax_step(&s, 20, &maximum, &sum) == 0)
    #expect(maximum == -.infinity && sum == 0 && s == [Float](repeating: 0, count: 64))
    s[0] = -.infinity
    s[1] = 2
    s[2] = -200
    #expect(set.kernels.softmax_step(&s, 3, &maximum, &sum) == 0)
    #expect(maximum == 2 && sum == 1 && s[0] == 0 && s[1] == 1 && s[2] == 0)
    s[3] = .nan
    _ = set.kernels.softmax_step(&s, 10, &maximum, &sum)
    #expect(sum.isNaN && s[3].isNaN)
  }

  /// The whole range of exp, through `exp_shifted`.
  @Test(arguments: InstructionSet.available)
  func expIsAccurateOverItsRange(_ set: InstructionSet) {
    for start in stride(from: Float(-110), to: 92, by: 1) {
      var x = (0..<64).map { start + Float($0) / 64 }
      let source = x
      set.kernels.exp_shifted(&x, 64, 0)
      for (value, found) in zip(source, x) {
        let expected = exp(Double(value))
        if expected > Double(Float.greatestFiniteMagnitude) {
          #expect(found == .infinity, "exp(\(value)) = \(found)")
        } else {
          #expect(abs(Double(found) - expected) <= expected * 3e-7 + 1.5e-45, "exp(\(value)) = \(found)")
        }
      }
    }
  }

  @Test(arguments: InstructionSet.available)
  func sumsOfExponentialsEqualTheirDefinition(_ set: InstructionSet) {
    var random = Random(seed: 33)
    for count in [0, 1, 15, 17, 31, 33, 63, 64, 65, 127, 1000, 4099] {
      var x = random.values(count, in: -40...3)
      if count > 20 { (x[3], x[count - 1], x[17]) = (.nan, .nan, -.infinity) }
      let expected = x.filter { !$0.isNaN }.reduce(0) { $0 + exp(Double(($1 - 3) / 0.7)) }
      #expect(abs(set.kernels.sum_exponentials(x, count, 3, 0.7) - expected) <= 1e-6 * expected)
    }
  }

  /// Page after page by the kernels of single pages, in the order that the kernels of runs of pages promise.
  @Test(arguments: InstructionSet.available, types)
  func runsOfPagesEqualSinglePages(_ set: InstructionSet, _ rawType: UInt32) {
    let type = kindred_type(rawValue: rawType)
    let kernels = set.kernels
    for d in blockTypes.contains(type) ? [32, 64, 96] : [15, 64, 100] {
      let page = Page(type, d: d, set: set)
      var random = Random(seed: 34)
      for (heads, rows, first, pages) in [(1, 1, 63, 1), (7, 1, 64, 2), (3, 5, 125, 3), (8, 2, 130, 3)] {
        let queries = heads * rows
        let query = random.values(queries * d)
        var expected = (
          output: [Float](repeating: 0, count: queries * d), maximum: [Float](repeating: -.infinity, count: queries),
          sum: [Float](repeating: 0, count: queries)
        )
        var found = expected
        var kept = [Float](repeating: 0, count: pages * queries * 64)
        var expectedKept = kept
        var logits = [Float](repeating: 0, count: queries * 64)
        for number in 0..<pages {
          let count = min(64, first + rows - number * 64)
          kernels.scores(type, query, d, queries, d, page.keys.pointer, count, 0.3, &logits)
          for i in 0..<queries {
            let valid = min(64, first + i / heads + 1 - number * 64)
            logits.withUnsafeMutableBufferPointer { logits in
              let row = logits.baseAddress! + i * 64
              guard valid > 0 else { return row.update(repeating: 0, count: 64) }
              for j in 0..<valid { expectedKept[(number * queries + i) * 64 + j] = row[j] }
              let factor = kernels.softmax_step(row, valid, &expected.maximum[i], &expected.sum[i])
              expected.output.withUnsafeMutableBufferPointer { kernels.scale($0.baseAddress! + i * d, d, factor) }
            }
          }
          kernels.accumulate(type, logits, queries, page.values.pointer, count, d, &expected.output, d)
        }
        let keys = [UnsafeRawPointer?](repeating: UnsafeRawPointer(page.keys.pointer), count: pages)
        let values = [UnsafeRawPointer?](repeating: UnsafeRawPointer(page.values.pointer), count: pages)
        kept.withUnsafeMutableBufferPointer { kept in
          let targets = (0..<queries).map { i in i == 1 ? nil : Optional(kept.baseAddress! + i * 64) }
          found.output.withUnsafeMutableBufferPointer { output in
            found.maximum.withUnsafeMutableBufferPointer { maximum in
              found.sum.withUnsafeMutableBufferPointer { sum in
                logits.withUnsafeMutableBufferPointer { logits in
                  query.withUnsafeBufferPointer { query in
                    keys.withUnsafeBufferPointer { keys in
                      values.withUnsafeBufferPointer { values in
                        targets.withUnsafeBufferPointer { targets in
                          var call = kindred_attention(
                            type: type, d: d, queries: queries, heads: heads, first_position: first, scale: 0.3,
                            query: query.baseAddress, first_page: 0, page_count: pages, keys: keys.baseAddress,
                            values: values.baseAddress, logits: logits.baseAddress, output: output.baseAddress,
                            maximum: maximum.baseAddress, sum: sum.baseAddress, kept: targets.baseAddress,
                            page_stride: queries * 64)
                          kernels.attend(&call)
                        }
                      }
                    }
                  }
                }
              }
            }
          }
        }
        #expect(found.output == expected.output && found.maximum == expected.maximum && found.sum == expected.sum)
        for number in 0..<pages {
          for i in 0..<queries where i != 1 {
            let valid = max(0, min(64, first + i / heads + 1 - number * 64))
            let start = (number * queries + i) * 64
            #expect(kept[start..<start + valid] == expectedKept[start..<start + valid])
          }
        }
      }
    }
  }
}
