// Small tokenizers of every kind against PyPI `tokenizers` and `sentencepiece` (`make_tokenizers.py`).

import Foundation
import KindredModelFiles
import KindredTokenization
import Testing

struct TokenizerTests {
  static let huggingFace = ["qwen2", "llama3", "gpt2", "smollm", "other", "llama2", "mistral", "gemma"]
  static let gguf = ["qwen2", "llama3", "smollm"]

  @Test(arguments: huggingFace)
  func encodesTokenizerJSONAsTheReference(name: String) throws {
    try compare(try Fixtures.huggingFace(name), with: name)
  }

  @Test(arguments: gguf)
  func encodesGGUFAsTheReference(name: String) throws {
    try compare(try Fixtures.gguf(name), with: name)
  }

  @Test func encodesScoresAsSentencePiece() throws {
    let tokenizer = try Fixtures.gguf("sentencepiece")
    let expected = try Fixtures.decode(Expectation.self, "sentencepiece.expected.json")
    // The reference was given texts without the user-defined symbol, and takes control tokens as text.
    func encodePlain(_ text: String) -> [Int32] {
      let plain = text.replacingOccurrences(of: "<tool>", with: "tool", options: .literal)
      return tokenizer.encode(plain, recognizesControlTokens: false, addsBOS: false)
    }
    for (text, ids) in zip(try Fixtures.strings(), expected.ids) {
      #expect(encodePlain(text) == ids, "\(text.debugDescription)")
    }
    try compareRandom(expected.random, encodePlain)
  }

  @Test(arguments: gguf)
  func bothFormatsHoldOneVocabulary(name: String) throws {
    #expect(try Fixtures.gguf(name).firstDifference(from: Fixtures.huggingFace(name)) == nil)
  }

  @Test func namesTheFirstDifference() throws {
    let tokenizer = try Fixtures.gguf("qwen2")
    let other = try Fixtures.huggingFace("qwen2") {
      $0.replacingOccurrences(of: "<|start|>", with: "<|begin|>")
    }
    let difference = try #require(tokenizer.firstDifference(from: other))
    let id = try #require(tokenizer.id(of: "<|start|>"))
    #expect(difference.contains("\(id)"))
    #expect(difference.contains("<|start|>") && difference.contains("<|begin|>"))
  }

  @Test func knowsWhatBeginsAndEndsText() throws {
    let tokenizer = try Fixtures.gguf("llama3")
    #expect(tokenizer.bos == tokenizer.id(of: "<|start|>"))
    #expect(tokenizer.eos == tokenizer.id(of: "<|end|>"))
    #expect(tokenizer.addsBOS)
    #expect(tokenizer.endOfGenerationIDs == [try #require(tokenizer.eos)])
    #expect(tokenizer.encode("") == [try #require(tokenizer.bos)])
    #expect(try !Fixtures.gguf("qwen2").addsBOS)
  }

  @Test(arguments: huggingFace)
  func decodesWhatItEncoded(name: String) throws {
    let tokenizer = try Fixtures.huggingFace(name)
    for text in try Fixtures.strings() where text.unicodeScalars.allSatisfy({ $0.value < 0x300 }) {
      // The added tokens of gpt2 take spaces along; Mistral makes no difference between no space and one at the start.
      if name == "gpt2" && (text.contains("<left>") || text.contains("<right>")) { continue }
      if name == "mistral" && text.hasPrefix(" ") { continue }
      let ids = tokenizer.encode(text, recognizesControlTokens: false, addsBOS: false)
      #expect(tokenizer.decode(ids) == text, "\(text.debugDescription)")
    }
  }

  @Test(.timeLimit(.minutes(1)), arguments: ["qwen2", "mistral"])
  func encodesLongHostileText(name: String) throws {
    let tokenizer = try Fixtures.huggingFace(name)
    for unit in ["a", " ", "\n", "1", "<", "\u{301}", "'", "ab ", "<|start|"] {
      let text = String(repeating: unit, count: 50_000)
      let ids = tokenizer.encode(text, addsBOS: false)
      #expect(ids.count <= text.utf8.count + 1)
      // Mistral makes no difference between no space and one at the start.
      #expect(tokenizer.decode(ids) == (name == "mistral" && unit == " " ? String(text.dropFirst()) : text))
    }
  }

  @Test func refusesWhatItCannotEncodeAlike() throws {
    let edits = [
      ("model.type", #""type":"BPE""#, #""type":"WordPiece""#),
      ("normalizer", #""type":"NFC""#, #""type":"Lowercase""#),
      ("pre_tokenizer", #""type":"ByteLevel","add_prefix_space":false"#, #""type":"Whitespace""#),
      ("pre-tokenizer", "(?i:", "(?i:("),
    ]
    for (field, original, replacement) in edits {
      let error = #expect(throws: TokenizerError.self) {
        try Fixtures.huggingFace("qwen2") { text in
          #expect(text.contains(original), "the fixture changed")
          return text.replacingOccurrences(of: original, with: replacement)
        }
      }
      #expect(error.map { "\($0)" }?.contains(field) == true)
    }
  }

  private func compare(_ tokenizer: Tokenizer, with name: String) throws {
    let strings = try Fixtures.strings()
    let expected = try Fixtures.decode(Expectation.self, "\(name).expected.json")
    for (text, ids) in zip(strings, expected.ids) {
      #expect(tokenizer.encode(text) == ids, "\(text.debugDescription)")
    }
    for (text, ids) in zip(strings, expected.plain ?? []) {
      let found = tokenizer.encode(text, recognizesControlTokens: false, addsBOS: false)
      #expect(found == ids, "\(text.debugDescription), control tokens as text")
    }
    try compareRandom(expected.random) { tokenizer.encode($0) }
    if let decoded = expected.decoded {
      var generator = Generator(seed: 2)
      for checksum in decoded.split(separator: " ") {
        let ids = generator.ids(below: tokenizer.vocabularySize)
        let text = tokenizer.decode(ids)
        #expect(Checksum.short(text.utf8.map(Int32.init)) == checksum, "\(ids): \(text.debugDescription)")
      }
    }
  }

  private func compareRandom(_ checksums: String, _ encode: (String) -> [Int32]) throws {
    var generator = Generator(seed: 1)
    for checksum in checksums.split(separator: " ") {
      let text = generator.text()
      #expect(Checksum.short(encode(text)) == checksum, "\(text.debugDescription)")
    }
  }
}
