// Safetensors files and Hugging Face folders against PyPI `safetensors`.

import Foundation
import KindredCompute
import KindredModelFiles
import Testing

@Suite(.timeLimit(.minutes(2))) struct SafetensorsTests {
  private struct Verdict: Decodable {
    let name: String
    let file: String
    let refusal: String?
  }

  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  @discardableResult private func isRefusedSafetensors(_ contents: [UInt8]) throws -> Bool {
    let path = try folder.write(contents, as: "hostile.safetensors")
    return isRefused { () throws(ModelFileError) in touchTensors(of: try SafetensorsFile(path: path)) }
  }

  private func file(header: String, data: [UInt8]) throws -> String {
    try folder.write(
      GGUFBuilder.little(UInt64(header.utf8.count)) + Array(header.utf8) + data, as: "a.safetensors")
  }

  @Test func refusesWhatTheReferenceRefuses() throws {
    // Sizes beyond 63 bits are no sizes here, even where another dimension is 0.
    let stricter: Set = ["dimension of 64 bits"]
    let verdicts = try decode([Verdict].self, "verdicts.json")
    #expect(verdicts.count > 190)
    for verdict in verdicts {
      let contents = [UInt8](try #require(Data(base64Encoded: verdict.file)))
      // A type unknown to the reference is listed here, and refused when the tensor is asked for.
      if verdict.refusal?.contains("unknown variant") == true { continue }
      let expected = verdict.refusal != nil || stricter.contains(verdict.name)
      #expect(
        try isRefusedSafetensors(contents) == expected, "\(verdict.name): \(verdict.refusal ?? "accepted")")
    }
  }

  @Test func refusesEveryTruncation() throws {
    let contents = try bytes(of: fixture("small.safetensors"))
    #expect(try !isRefusedSafetensors(contents))
    for length in 0..<contents.count {
      #expect(
        try isRefusedSafetensors(Array(contents[..<length])), "cut to \(length) of \(contents.count) bytes")
    }
  }

  @Test func survivesEveryChangedByte() throws {
    let contents = try bytes(of: fixture("small.safetensors"))
    let masks: [UInt8] = (0..<8).map { 1 << $0 } + [0xFF, 0x81]
    for position in contents.indices {
      for mask in masks {
        var altered = contents
        altered[position] ^= mask
        try isRefusedSafetensors(altered)
      }
    }
  }

  @Test func survivesRandomChanges() throws {
    let contents = try bytes(of: fixture("small.safetensors"))
    let interesting = Array("0123456789{}[]\":,-eE.\\u".utf8)
    var generator = SeededGenerator(seed: 6)
    for _ in 0..<3_000 {
      var altered = contents
      for _ in 0..<Int.random(in: 1...4, using: &generator) {
        altered[Int.random(in: altered.indices, using: &generator)] =
          interesting.randomElement(using: &generator) ?? 0
      }
      try isRefusedSafetensors(altered)
    }
  }

  @Test func readsMetadata() throws {
    #expect(try SafetensorsFile(path: fixture("small.safetensors")).metadata == ["k": "v"])
  }

  @Test func refusesDuplicateTensors() throws {
    let tensor = #"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#
    let path = try file(header: #"{"a":\#(tensor),"a":\#(tensor)}"#, data: [])
    let error = #expect(throws: ModelFileError.self) { try SafetensorsFile(path: path) }
    #expect(error?.description == "\(path): tensor \"a\": expected one, found two of this name")
  }

  /// Sizes that overflow, and more elements than bits, whatever the type.
  @Test(arguments: [
    ("F32", "[0,4611686018427387904,4]"), ("I64", "[4611686018427387904,4]"),
    ("I64", "[4611686018427387904]"),
    ("X", "[1000]"),
  ])
  func refusesAbsurdShapes(type: String, shape: String) throws {
    let path = try file(
      header: #"{"a":{"dtype":"\#(type)","shape":\#(shape),"data_offsets":[0,0]}}"#, data: [])
    #expect(throws: ModelFileError.self) { try SafetensorsFile(path: path) }
  }

  @Test func errorsSayWhereAndWhat() throws {
    func description(_ header: String, _ data: [UInt8] = []) throws -> String {
      let path = try file(header: header, data: data)
      let error = #expect(throws: ModelFileError.self) { try SafetensorsFile(path: path) }
      return error?.description.replacingOccurrences(of: path, with: "FILE") ?? ""
    }
    #expect(
      try description(#"{"a":{"dtype":"F32","shape":[2,-1],"data_offsets":[0,8]}}"#)
        == "FILE: tensor \"a\".shape[1]: expected an integer from 0 to 9223372036854775807, found -1")
    #expect(
      try description(#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, [0, 0, 0, 0])
        == "FILE: tensor \"a\".data_offsets[1]: expected an integer from 0 to 4, found 8")
    #expect(
      try description(#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, [0, 0, 0, 0])
        == "FILE: tensor \"a\".data_offsets: expected the bytes of F32 of shape [2], found 4")
    #expect(
      try description(#"{"a":{"dtype":"F32"}}"#)
        == "FILE: tensor \"a\".shape: expected an array, found nothing")
    #expect(
      try description("{} x") == "FILE: at byte 11: JSON: expected the end of the JSON text, found \"x\"")
  }
}

@Suite struct HuggingFaceFolderTests {
  private struct Expected: Decodable {
    let name: String
    let type: String
    let shape: [Int]
    let bytes: Int
    let hash: String
  }

  /// A copy of the sharded fixture with another index.
  private func folder(index: String) throws -> TemporaryFolder {
    let folder = try TemporaryFolder()
    for name in ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
      try folder.write(bytes(of: fixture("sharded/\(name)")), as: name)
    }
    try folder.write(Array(index.utf8), as: "model.safetensors.index.json")
    return folder
  }

  @Test(arguments: ["single", "sharded"]) func readsTensorsAsTheReferenceDoes(name: String) throws {
    let folder = try HuggingFaceFolder(path: fixture(name))
    let expected = try decode([Expected].self, "\(name)/expected.json")
    #expect(folder.weights.count == (name == "single" ? 1 : 2))
    #expect(folder.tensorNames.sorted() == expected.map(\.name))
    #expect(folder.tensors.map(\.name) == folder.tensorNames)
    for expected in expected {
      let stored = try #require(folder.tensors.first { $0.name == expected.name })
      #expect(stored.typeName == expected.type && stored.shape == expected.shape)
      #expect(stored.extent.count == expected.bytes)
      if expected.type == "I64" {
        let error = #expect(throws: ModelFileError.self) { try folder.tensor(named: expected.name) }
        #expect(error?.field == "tensor \"model.positions\"" && error?.problem.hasSuffix("found I64") == true)
        continue
      }
      let tensor = try #require(try folder.tensor(named: expected.name))
      #expect(tensor.type.name == expected.type && tensor.shape == expected.shape)
      #expect(tensor.withBytes { fnv1a($0) } == expected.hash)
    }
    #expect(try folder.tensor(named: "no such tensor") == nil)
  }

  @Test func readsTheFilesBesideTheWeights() throws {
    let single = try HuggingFaceFolder(path: fixture("single"))
    #expect(try single.config.integer("hidden_size") == 8)
    #expect(try single.generationConfig?.integers("eos_token_id") == [1, 2])
    #expect(single.tokenizerPath == nil && single.tokenizerConfigPath == nil)
    #expect(try HuggingFaceFolder(path: fixture("sharded")).generationConfig == nil)

    let temporary = try folder(index: #"{"weight_map": {}}"#)
    let tokenizer = try temporary.write(Array("{}".utf8), as: "tokenizer.json")
    let opened = try HuggingFaceFolder(path: temporary.path)
    #expect(opened.tokenizerPath == tokenizer && opened.tensorNames.isEmpty)
  }

  @Test(arguments: [
    "../model.safetensors", "/etc/passwd", "/x.safetensors", "..", "", "a/b.safetensors", "passwd",
    "x\\u0000.safetensors",
  ])
  func refusesShardsOutsideTheFolder(name: String) throws {
    let folder = try folder(index: #"{"weight_map": {"w": "\#(name)"}}"#)
    let error = #expect(throws: ModelFileError.self) { try HuggingFaceFolder(path: folder.path) }
    #expect(error?.field == "weight_map.w")
    #expect(error?.path == "\(folder.path)/model.safetensors.index.json")
  }

  @Test(arguments: [
    (#"{"weight_map": {"w": "model-00001-of-00002.safetensors"}}"#, "expected this tensor in model-00001"),
    (#"{"weight_map": {"w": "model-00009-of-00002.safetensors"}}"#, "No such file or directory"),
    (#"{"weight_map": {"w": 3}}"#, "expected a file name, found 3"),
    (#"{"weight_map": []}"#, "expected an object, found an array of 0"),
    (#"{}"#, "expected an object, found nothing"),
    (#"{"weight_map": {"w": "a.safetensors", "w": "b.safetensors"}}"#, "expected one file for this tensor"),
  ])
  func refusesIndexes(index: String, problem: String) throws {
    let folder = try folder(index: index)
    let error = #expect(throws: ModelFileError.self) { try HuggingFaceFolder(path: folder.path) }
    #expect(error?.problem.contains(problem) == true, "\(error?.description ?? "")")
  }
}
