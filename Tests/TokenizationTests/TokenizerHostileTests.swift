// Damaged tokenizer files give an error or a tokenizer that works, never a crash.

import Foundation
import KindredModelFiles
import KindredTokenization
import Testing

struct TokenizerHostileTests {
  static let text = "Hello <|start|> wörld 123 <tool> \u{1100}\u{1161}\u{301}\r\n  <left> x"

  /// Encodes and decodes, whatever the tokenizer is like.
  func use(_ tokenizer: Tokenizer) {
    let ids = tokenizer.encode(Self.text)
    #expect(ids.allSatisfy { $0 >= 0 && $0 < tokenizer.vocabularySize })
    #expect(tokenizer.decode(ids + [-1, .max, .min]).utf8.count < 100_000)
  }

  /// `original` with up to three bytes changed.
  func damaged(_ original: Data, _ generator: inout Generator) -> Data {
    var data = original
    for _ in 0...generator.below(3) {
      let digits = Array("0123456789-{}[]\",:".utf8)
      let byte = generator.below(2) == 0 ? UInt8(generator.below(256)) : digits[generator.below(digits.count)]
      data[generator.below(data.count)] = byte
    }
    return data
  }

  @Test(arguments: ["qwen2", "llama3", "sentencepiece"])
  func damagedGGUFIsSurvived(name: String) throws {
    let original = try Data(contentsOf: Fixtures.url("\(name).gguf"))
    var generator = Generator(seed: 11)
    for _ in 0..<150 {
      let path = FileManager.default.temporaryDirectory.appending(path: "\(UUID().uuidString).gguf")
      defer { try? FileManager.default.removeItem(at: path) }
      try damaged(original, &generator).write(to: path)
      if let tokenizer = try? Tokenizer(gguf: GGUFFile(path: path.path)) { use(tokenizer) }
    }
  }

  @Test(arguments: ["qwen2", "gpt2", "mistral"])
  func damagedTokenizerJSONIsSurvived(name: String) throws {
    let original = try Data(contentsOf: Fixtures.url("\(name).tokenizer.json"))
    var generator = Generator(seed: 12)
    for _ in 0..<150 {
      let text = String(decoding: damaged(original, &generator), as: UTF8.self)
      if let tokenizer = try? Fixtures.huggingFace(name, edit: { _ in text }) { use(tokenizer) }
    }
  }

  /// What would give other tokens than those that `tokenizers` gives is refused, not taken for what is known.
  @Test(arguments: [
    ("gemma", "\"pattern\":{\"String\":\" \"},\"content\":\"▁\"", "\"pattern\":{\"String\":\"a\"},\"content\":\"▁\""),
    ("gemma", "\"content\":\"▁\"},\"pre", "\"content\":\"_\"},\"pre"),
    ("gemma", "\"Split\",\"pattern\":{\"String\":\" \"}", "\"Split\",\"pattern\":{\"String\":\"e\"}"),
    ("llama2", "\"prepend\":\"▁\"", "\"prepend\":\"x\""),
    ("qwen2", "\"Isolated\"", "\"Removed\""),
    ("qwen2", "\"invert\":false", "\"invert\":true"),
  ])
  func otherStepsThanKnownOnesAreRefused(name: String, known: String, other: String) throws {
    #expect(throws: TokenizerError.self) {
      try Fixtures.huggingFace(name) { text in
        #expect(text.contains(known))
        return text.replacingOccurrences(of: known, with: other)
      }
    }
  }

  @Test func idsBeyondTheVocabularyAreRefused() throws {
    for id in ["-1", "16777216", "9223372036854775807", "1e3", "99999999999999999999"] {
      #expect(throws: TokenizerError.self) {
        try Fixtures.huggingFace("qwen2") { $0.replacingOccurrences(of: "\"!\":0,", with: "\"!\":\(id),") }
      }
    }
  }
}
