// What `make_tokenizers.py` wrote, and its generator of texts.

import Foundation
import KindredModelFiles
import KindredTokenization
import Testing

/// The linear congruential generator of `make_tokenizers.py`, and the same texts made with it.
struct Generator {
  var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func below(_ bound: Int) -> Int {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return Int((state >> 33) % UInt64(bound))
  }

  static let spaces: [String] = [" ", "\n", "\r", "\t", "\u{A0}", "\u{2003}", "\u{3000}", "\u{85}"]
  static let pieces = [
    "'s", "'S", "'ſ", "'re", "'LL", "n't", "<|im_start|>", "<|start|>", "<tool>", "12345", "  ", "the",
    " word", "▁",
  ]
  static let scalars = [(0xA0, 0x500), (0x300, 0x70), (0x1100, 0x100), (0x3000, 0x6F00), (0, 0x110000)]

  mutating func piece() -> String {
    let kind = below(10)
    let (start, count) = kind < 3 ? (0x20, 95) : kind < 5 ? (0, 0) : Self.scalars[kind - 5]
    if kind == 3 { return Self.spaces[below(Self.spaces.count)] }
    if kind == 4 { return Self.pieces[below(Self.pieces.count)] }
    return String(Unicode.Scalar(UInt32(start + below(count))) ?? "\u{FFFD}")
  }

  mutating func text() -> String { (0..<1 + below(24)).map { _ in piece() }.joined() }

  mutating func ids(below bound: Int) -> [Int32] { (0..<1 + below(12)).map { _ in Int32(below(bound)) } }
}

/// FNV-1a over numbers as 32-bit little-endian.
struct Checksum {
  private(set) var value: UInt64 = 0xCBF2_9CE4_8422_2325

  mutating func add(_ numbers: some Sequence<Int32>) {
    for number in numbers {
      let bits = UInt32(bitPattern: number)
      for shift in [0, 8, 16, 24] { value = (value ^ UInt64(bits >> shift & 0xFF)) &* 0x100_0000_01B3 }
    }
  }

  /// A checksum of 32 bits, as text.
  static func short(_ numbers: some Sequence<Int32>) -> String {
    var checksum = Checksum()
    checksum.add(numbers)
    return hexadecimal(checksum.value >> 32 ^ checksum.value & 0xFFFF_FFFF, digits: 8)
  }

  static func hexadecimal(_ value: UInt64, digits: Int) -> String {
    let text = String(value, radix: 16)
    return String(repeating: "0", count: digits - text.count) + text
  }
}

/// What the reference makes of the texts, with one tokenizer.
struct Expectation: Decodable {
  /// The ids of each text of `strings.json`.
  let ids: [[Int32]]
  /// Short checksums of the ids of generated texts.
  let random: String
  /// The ids of each text when special tokens are only text, without BOS.
  let plain: [[Int32]]?
  /// Short checksums of the UTF-8 of generated ids' text.
  let decoded: String?
}

enum Fixtures {
  static func url(_ name: String) throws -> URL {
    try #require(Bundle.module.url(forResource: "Fixtures", withExtension: nil))
      .appending(path: "tokenizers").appending(path: name)
  }

  static func decode<T: Decodable>(_ type: T.Type, _ name: String) throws -> T {
    try JSONDecoder().decode(type, from: Data(contentsOf: url(name)))
  }

  static func strings() throws -> [String] { try decode([String].self, "strings.json") }

  static func gguf(_ name: String) throws -> Tokenizer {
    try Tokenizer(gguf: GGUFFile(path: url("\(name).gguf").path))
  }

  /// The tokenizer of `name.tokenizer.json`, after `edit` of its text.
  static func huggingFace(_ name: String, edit: (String) -> String = { $0 }) throws -> Tokenizer {
    let text = try String(contentsOf: url("\(name).tokenizer.json"), encoding: .utf8)
    return try withFolder(["tokenizer.json": edit(text)]) {
      try Tokenizer(huggingFace: HuggingFaceFolder(path: $0))
    }
  }

  /// Calls `body` with a model folder that holds `files` and no tensors.
  static func withFolder<T>(_ files: [String: String], _ body: (String) throws -> T) throws -> T {
    let folder = FileManager.default.temporaryDirectory.appending(path: UUID().uuidString)
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let emptySafetensors = "\u{2}\0\0\0\0\0\0\0{}"
    let all = files.merging(["config.json": "{}", "model.safetensors": emptySafetensors]) { file, _ in file }
    for (name, text) in all { try Data(text.utf8).write(to: folder.appending(path: name)) }
    return try body(folder.path)
  }
}
