// GGUF files against what PyPI `gguf` wrote and read.

import Foundation
import KindredCompute
import KindredModelFiles
import Testing

@Suite struct GGUFFileTests {
  private struct Expected: Decodable {
    struct Tensor: Decodable {
      let name: String
      let type: String
      let shape: [Int]
      let offset: Int
      let bytes: Int
      let hash: String
    }
    let tensors: [Tensor]
  }

  private struct TypeRow: Decodable {
    let id: UInt32
    let name: String
    let elements: Int
    let bytes: Int
  }

  private let file: GGUFFile

  init() throws { file = try GGUFFile(path: fixture("all-types.gguf")) }

  @Test func readsTensorsAsTheReferenceDoes() throws {
    let expected = try decode(Expected.self, "all-types.json").tensors
    #expect(file.tensorNames == expected.map(\.name))
    for (stored, expected) in zip(file.tensors, expected) {
      #expect(stored.typeName == expected.type)
      #expect(stored.shape == expected.shape)
      #expect(stored.extent == expected.offset..<expected.offset + expected.bytes)
      if stored.type == nil { continue }
      let tensor = try #require(try file.tensor(named: expected.name))
      #expect(tensor.name == expected.name && tensor.shape == expected.shape)
      #expect(tensor.type.name == expected.type)
      #expect(tensor.withBytes { fnv1a($0) } == expected.hash)
    }
    #expect(Set(file.tensors.compactMap(\.type)) == Set(TensorType.allCases))
    #expect(try file.tensor(named: "no such tensor") == nil)
  }

  @Test func readsTensorValues() throws {
    let tensor = try #require(try file.tensor(named: "vector"))
    let values = tensor.withBytes { bytes in
      (0..<7).map { bytes.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) }
    }
    #expect(values == [0, 1, 2, 3, 4, 5, 6])
  }

  @Test(arguments: [("integers", "I32"), ("iq4_xs", "IQ4_XS")])
  func namesTheTensorAndTheTypeThatAreNotRead(name: String, type: String) throws {
    let error = #expect(throws: ModelFileError.self) { try file.tensor(named: name) }
    #expect(error?.field == "tensor \"\(name)\"")
    #expect(error?.problem.hasSuffix("found \(type)") == true)
  }

  @Test func readsScalarsOfEveryType() throws {
    #expect(try file.integer("scalar.uint8") == 200)
    #expect(try file.integer("scalar.int8") == -100)
    #expect(try file.integer("scalar.uint16") == 60_000)
    #expect(try file.integer("scalar.int16") == -30_000)
    #expect(try file.integer("scalar.uint32") == 4_000_000_000)
    #expect(try file.integer("scalar.int32") == -2_000_000_000)
    #expect(file.metadata["scalar.uint64"] == .unsigned(.max))
    #expect(try file.integer("scalar.int64") == .min)
    #expect(try file.double("scalar.float32") == Double(Float(0.1)))
    #expect(try file.double("scalar.float64") == 0.1)
    #expect(try file.bool("scalar.true"))
    #expect(try !file.bool("scalar.false"))
    #expect(try file.string("scalar.string") == "Grüße, 世界 🌍")
    #expect(try file.string("scalar.empty string").isEmpty)
    #expect(file.alignment == 64)
  }

  @Test func readsArraysOfEveryType() throws {
    #expect(try file.integers("array.uint8s") == [0, 255])
    #expect(try file.integers("array.int8s") == [-128, 127])
    #expect(try file.integers("array.uint16s") == [0, 65_535])
    #expect(try file.integers("array.int16s") == [-32_768, 32_767])
    #expect(try file.integers("array.uint32s") == [0, Int(UInt32.max)])
    #expect(try file.integers("array.int32s") == [Int(Int32.min), Int(Int32.max)])
    #expect(try file.integers("array.int64s") == [.min, .max])
    #expect(try file.floats("array.float32s") == [0.5, -1e30])
    #expect(try file.floats("array.float64s") == [0.1, .infinity])
    let numbers = try #require(
      { if case .numbers(let numbers)? = file.metadata["array.uint64s"] { numbers } else { nil } }())
    #expect(numbers.elementType == .uint64)
    #expect(Array(numbers) == [.unsigned(0), .unsigned(.max)])
    guard case .numbers(let bools)? = file.metadata["array.bools"] else { throw Missing() }
    #expect(Array(bools) == [.bool(true), .bool(false), .bool(true)])
    guard case .arrays(let nested)? = file.metadata["array.nested"] else { throw Missing() }
    #expect(nested.map(\.integers) == [[1, 2], [3]])
  }

  private struct Missing: Error {}

  @Test func keepsTheBytesOfStringsThatAreNoUTF8() throws {
    let strings = try file.strings("array.strings")
    #expect(strings.map(Array.init) == [[0x61], [], [0xFF, 0xFE], Array("é".utf8)])
  }

  @Test func aSingleIntegerIsAListOfOne() throws {
    #expect(try file.integers("scalar.uint8") == [200])
  }

  @Test func readsVersion2() throws {
    let folder = try TemporaryFolder()
    var contents = try bytes(of: fixture("all-types.gguf"))
    contents[4] = 2
    let older = try GGUFFile(path: folder.write(contents, as: "v2.gguf"))
    #expect(older.version == 2)
    #expect(older.tensors == file.tensors)
    #expect(older.metadata == file.metadata)
  }

  @Test func errorsNameKeyExpectationAndFinding() throws {
    func problem(_ body: () throws -> Void) -> String? {
      #expect(throws: ModelFileError.self, performing: body).map { "\($0.field ?? ""): \($0.problem)" }
    }
    #expect(
      problem { _ = try file.integer("scalar.string") }
        == "metadata \"scalar.string\": expected an integer, found \"Grüße, 世界 🌍\"")
    #expect(
      problem { _ = try file.integer("no.key") } == "metadata \"no.key\": expected an integer, found nothing")
    #expect(
      problem { _ = try file.integerIfPresent("scalar.uint8", in: 1...100) }
        == "metadata \"scalar.uint8\": expected an integer from 1 to 100, found 200")
    #expect(
      problem { _ = try file.strings("array.uint8s") }
        == "metadata \"array.uint8s\": expected an array of strings, found [0, 255]")
    #expect(problem { _ = try file.integers("array.uint64s") } != nil)
    #expect(try file.integerIfPresent("no.key") == nil)
    #expect(try file.stringsIfPresent("no.key") == nil)
  }

  /// Every type of ggml's table, as the only tensor of a file, has the reference's name and size.
  @Test func knowsTheBlocksOfEveryType() throws {
    let folder = try TemporaryFolder()
    let rows = try decode([TypeRow].self, "tensor-types.json")
    #expect(rows.count > 30)
    for row in rows {
      var builder = GGUFBuilder()
      builder.addTensor("t", [UInt64(3 * row.elements), 2], type: row.id, offset: 0)
      builder.data = Array(repeating: 1, count: 6 * row.bytes)
      let stored = try #require(
        try GGUFFile(path: folder.write(builder.bytes, as: "type.gguf")).tensors.first)
      #expect(stored.typeName == row.name)
      #expect(stored.extent.count == 6 * row.bytes)
      #expect(stored.type == TensorType(rawValue: row.id))
      #expect(stored.type.map { $0.blockElements == row.elements && $0.blockBytes == row.bytes } != false)

      builder.data.removeLast()
      let path = try folder.write(builder.bytes, as: "type.gguf")
      #expect(isRefused { () throws(ModelFileError) in _ = try GGUFFile(path: path) })
    }
  }
}
