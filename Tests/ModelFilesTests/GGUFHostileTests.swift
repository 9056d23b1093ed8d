// GGUF files that are truncated, altered or absurd: an error that says where, or values inside the file.

import Foundation
import KindredCompute
import KindredModelFiles
import Testing

@Suite(.timeLimit(.minutes(2))) struct GGUFHostileTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  /// Opens `contents` and reads everything; whether it was refused.
  @discardableResult private func isRefusedGGUF(_ contents: [UInt8]) throws -> Bool {
    let path = try folder.write(contents, as: "hostile.gguf")
    return isRefused { () throws(ModelFileError) in
      let file = try GGUFFile(path: path)
      touchTensors(of: file)
      touchMetadata(of: file)
    }
  }

  private func error(_ builder: GGUFBuilder) throws -> ModelFileError? {
    let path = try folder.write(builder.bytes, as: "hostile.gguf")
    return #expect(throws: ModelFileError.self) { try GGUFFile(path: path) }
  }

  /// A builder with `type` and `value` under the key "k", and where the value's bytes begin.
  private func builder(_ type: UInt32, _ value: [UInt8]) -> (builder: GGUFBuilder, valueOffset: Int) {
    var builder = GGUFBuilder()
    builder.add("k", type: type, value)
    return (builder, 24 + 9 + 4)
  }

  @Test func refusesEveryTruncation() throws {
    let contents = try bytes(of: fixture("small.gguf"))
    #expect(try !isRefusedGGUF(contents))
    for length in 0..<contents.count {
      #expect(try isRefusedGGUF(Array(contents[..<length])), "cut to \(length) of \(contents.count) bytes")
    }
  }

  @Test func survivesEveryChangedByte() throws {
    let contents = try bytes(of: fixture("small.gguf"))
    let masks: [UInt8] = (0..<8).map { 1 << $0 } + [0xFF, 0x81]
    var refused = 0
    for position in contents.indices {
      for mask in masks {
        var altered = contents
        altered[position] ^= mask
        if try isRefusedGGUF(altered) { refused += 1 }
      }
    }
    #expect(refused > contents.count)
  }

  @Test func survivesRandomChanges() throws {
    let contents = try bytes(of: fixture("small.gguf"))
    let interesting: [UInt8] = [0, 1, 0x7F, 0x80, 0xFF]
    var generator = SeededGenerator(seed: 5)
    for _ in 0..<3_000 {
      var altered = contents
      let start = Int.random(in: altered.indices, using: &generator)
      let end = min(start + Int.random(in: 1...8, using: &generator), altered.count)
      let fill = interesting.randomElement(using: &generator)
      for position in start..<end { altered[position] = fill ?? 0 }
      altered[Int.random(in: altered.indices, using: &generator)] = .random(in: 0...255, using: &generator)
      try isRefusedGGUF(altered)
    }
  }

  @Test func refusesAbsurdCounts() throws {
    let tensors = try error(GGUFBuilder(tensorCount: 1 << 60))
    #expect(tensors?.offset == 8 && tensors?.field == "tensor count")
    let pairs = try error(GGUFBuilder(pairCount: .max))
    #expect(pairs?.offset == 16 && pairs?.field == "metadata count")
    #expect(pairs?.problem == "expected at most 0 in what is left of the file, found 18446744073709551615")

    // More tensors than there are, though few enough for the bytes that follow.
    #expect(try error(GGUFBuilder(tensorCount: 1, data: Array(repeating: 0xFF, count: 99)))?.offset != nil)
  }

  @Test(arguments: [1 << 63, UInt64.max, 1 << 32, 9])
  func refusesStringsAndArraysBeyondTheFile(count: UInt64) throws {
    let string = builder(8, GGUFBuilder.little(count) + Array("12345678".utf8))
    let stringError = try error(string.builder)
    #expect(stringError?.offset == string.valueOffset && stringError?.field == "metadata \"k\"")

    for elementType: UInt32 in 0...12 {
      let array = builder(
        9, GGUFBuilder.little(elementType) + GGUFBuilder.little(count) + [1, 0, 1, 0, 1, 0, 1, 0])
      let arrayError = try error(array.builder)
      #expect(arrayError?.offset == array.valueOffset + 4 && arrayError?.field == "metadata \"k\"")
    }

    var key = GGUFBuilder(pairCount: 1)
    key.pairs = [GGUFBuilder.little(count) + Array("12345678".utf8)]
    #expect(try error(key)?.field == "metadata key 0")
  }

  @Test func refusesUnknownValueTypesAndTruthValues() throws {
    let type = builder(13, [0])
    #expect(try error(type.builder)?.problem == "expected a value type from 0 to 12, found 13")
    let bool = builder(7, [2])
    #expect(try error(bool.builder)?.offset == bool.valueOffset)
    let bools = builder(9, GGUFBuilder.little(7 as UInt32) + GGUFBuilder.little(3 as UInt64) + [1, 0, 3])
    #expect(try error(bools.builder)?.offset == bools.valueOffset + 14)
  }

  @Test func limitsTheDepthOfArrays() throws {
    func nested(_ depth: Int) -> [UInt8] {
      let array = GGUFBuilder.little(9 as UInt32) + GGUFBuilder.little(1 as UInt64)
      let numbers = GGUFBuilder.little(0 as UInt32) + GGUFBuilder.little(1 as UInt64) + [7]
      return Array(repeating: array, count: depth - 1).joined() + numbers
    }
    #expect(try !isRefusedGGUF(builder(9, nested(4)).builder.bytes))
    #expect(try error(builder(9, nested(5)).builder)?.problem.contains("nested at most 4 deep") == true)
    #expect(try isRefusedGGUF(builder(9, nested(100_000)).builder.bytes))
  }

  @Test(arguments: [0, 1, 4, 3, 24, UInt64(UInt32.max), 1 << 40])
  func refusesAlignments(alignment: UInt64) throws {
    var builder = GGUFBuilder()
    builder.add("general.alignment", type: 10, GGUFBuilder.little(alignment))
    #expect(try error(builder)?.field == "metadata \"general.alignment\"")
  }

  @Test func refusesAnAlignmentThatIsNoInteger() throws {
    var builder = GGUFBuilder()
    builder.add("general.alignment", type: 8, GGUFBuilder.string("32"))
    #expect(try error(builder)?.problem == "expected a power of two from 8 to 2147483648, found \"32\"")
  }

  @Test func refusesDuplicates() throws {
    var keys = GGUFBuilder()
    keys.add("k", type: 0, [1])
    keys.add("k", type: 0, [2])
    #expect(try error(keys)?.problem == "expected a new key, found this one for the second time")

    var tensors = GGUFBuilder()
    tensors.addTensor("t", [4], type: 0, offset: 0)
    tensors.addTensor("t", [4], type: 0, offset: 32)
    tensors.data = Array(repeating: 0, count: 64)
    #expect(try error(tensors)?.problem == "expected one, found two of this name")
  }

  @Test func refusesNamesThatAreNoUTF8() throws {
    var builder = GGUFBuilder()
    builder.pairs = [GGUFBuilder.little(2 as UInt64) + [0xFF, 0xFE] + GGUFBuilder.little(0 as UInt32) + [1]]
    #expect(try error(builder)?.offset == 24)
    builder.pairs = []
    builder.add(String(repeating: "k", count: 65_536), type: 0, [1])
    #expect(try error(builder)?.problem == "expected a name of at most 65535 bytes, found one of 65536")
  }

  /// One tensor, and what its error must speak of.
  struct Tensor: Sendable, CustomTestStringConvertible {
    let dimensions: [UInt64]
    let type: UInt32
    let offset: UInt64
    let problem: String

    init(_ dimensions: [UInt64], type: UInt32 = 0, offset: UInt64 = 0, _ problem: String) {
      (self.dimensions, self.type, self.offset, self.problem) = (dimensions, type, offset, problem)
    }

    var testDescription: String { "\(dimensions), type \(type), offset \(offset)" }
  }

  @Test(arguments: [
    Tensor([1, 1, 1, 1, 1], "expected at most 4 dimensions, found 5"),
    Tensor([0], "expected a dimension from 1"),
    Tensor([1 << 63], "expected a dimension from 1"),
    Tensor([1 << 62, 1 << 62], "63 bits, found shape [4611686018427387904, 4611686018427387904]"),
    Tensor([1 << 32, 1 << 31], "63 bits"),
    Tensor([1 << 61], "63 bits"),
    Tensor([33, 32], type: 8, "whole blocks of 32 elements for Q8_0"),
    Tensor([128, 2], type: 12, "whole blocks of 256 elements for Q4_K"),
    Tensor([4], type: 4, "found unknown type 4"),
    Tensor([4], type: .max, "found unknown type 4294967295"),
    Tensor([4], offset: 1, "a multiple of 32, found 1"),
    Tensor([4], offset: 1 << 63, "a multiple of 32, found 9223372036854775808"),
    Tensor([4], offset: (1 << 63) - 32, "expected its bytes before the end of the file"),
    Tensor([4], offset: 1 << 40, "expected its bytes before the end of the file"),
    Tensor([4], offset: 96, "expected its bytes before the end of the file"),
    Tensor([25], "expected its bytes before the end of the file"),
    Tensor([17], offset: 32, "expected its bytes before the end of the file"),
  ])
  func refusesTensors(tensor: Tensor) throws {
    var builder = GGUFBuilder()
    builder.addTensor("t", tensor.dimensions, type: tensor.type, offset: tensor.offset)
    builder.data = Array(repeating: 0, count: 96)
    let error = try error(builder)
    #expect(error?.problem.contains(tensor.problem) == true, "\(error?.problem ?? "no error")")
    #expect(error?.field == "tensor \"t\"" && error?.offset != nil)
  }

  @Test func refusesOverlappingTensors() throws {
    let int8: UInt32 = 24
    for (count, offset) in [(32, 0), (33, 32), (96, 64)] as [(UInt64, UInt64)] {
      var builder = GGUFBuilder()
      builder.addTensor("second", [8], type: int8, offset: offset)
      builder.addTensor("first", [count], type: int8, offset: 0)
      builder.data = Array(repeating: 0, count: 128)
      #expect(try error(builder)?.problem.contains("overlaps tensor") == true)
    }
  }

  @Test func acceptsTensorsInAnyOrderAndWithGaps() throws {
    var builder = GGUFBuilder()
    builder.addTensor("last", [4], type: 0, offset: 96)
    builder.addTensor("scalar", [], type: 0, offset: 0)
    builder.data = Array(repeating: 9, count: 112)
    let file = try GGUFFile(path: folder.write(builder.bytes, as: "gaps.gguf"))
    #expect(file.tensorNames == ["last", "scalar"])
    #expect(try file.tensor(named: "scalar")?.shape == [])
    touchTensors(of: file)
  }

  @Test func refusesOtherVersionsAndFormats() throws {
    for version: UInt32 in [0, 1, 4, .max] {
      #expect(try error(GGUFBuilder(version: version))?.field == "version")
    }
    #expect(
      try error(GGUFBuilder(version: 3 << 24))?.problem == "expected 2 or 3, found 3 in big-endian order")
    let text = try folder.write(Array("hello\n".utf8), as: "text.gguf")
    let error = #expect(throws: ModelFileError.self) { try GGUFFile(path: text) }
    #expect(
      error?.description
        == "\(text): at byte 0: magic: expected a GGUF file, which begins with \"GGUF\", found \"hell\"")
  }
}
