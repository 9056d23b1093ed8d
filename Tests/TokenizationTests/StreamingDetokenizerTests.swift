// Streamed pieces joined are the decoded whole, and none ends in half a character.

import KindredTokenization
import Testing

struct StreamingDetokenizerTests {
  @Test(arguments: ["qwen2", "llama3", "gpt2", "mistral", "gemma"], [false, true])
  func piecesJoinToTheWhole(name: String, skipsControlTokens: Bool) throws {
    let tokenizer = try Fixtures.huggingFace(name)
    var generator = Generator(seed: 5)
    for _ in 0..<300 {
      let ids = generator.ids(below: tokenizer.vocabularySize)
      var detokenizer = StreamingDetokenizer(tokenizer, skipsControlTokens: skipsControlTokens)
      let pieces = ids.map { detokenizer.push($0) } + [detokenizer.flush()]
      #expect(pieces.joined() == tokenizer.decode(ids, skipsControlTokens: skipsControlTokens), "\(ids)")
    }
  }

  @Test func bytesWithoutControlTokensDecodeAsOneString() throws {
    let tokenizer = try Fixtures.gguf("qwen2")
    var generator = Generator(seed: 6)
    for _ in 0..<1000 {
      let ids = generator.ids(below: 256)
      let whole = String(decoding: ids.flatMap { tokenizer.bytes(of: $0) }, as: UTF8.self)
      #expect(tokenizer.decode(ids) == whole, "\(ids)")
    }
  }

  @Test func holdsHalfACharacter() throws {
    let tokenizer = try Fixtures.gguf("qwen2")
    let ids = Array("é👍🏽".utf8).compactMap { byte in
      (0..<Int32(tokenizer.vocabularySize)).first { tokenizer.bytes(of: $0) == [byte] }
    }
    var detokenizer = StreamingDetokenizer(tokenizer)
    #expect(ids.map { detokenizer.push($0) } == ["", "é", "", "", "", "👍", "", "", "", "🏽"])
    #expect(detokenizer.push(ids[2]) == "")
    #expect(detokenizer.flush() == "\u{FFFD}")
    #expect(detokenizer.flush() == "")
  }
}
