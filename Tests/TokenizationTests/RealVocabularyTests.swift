// The real vocabularies against PyPI `tokenizers`, over whole corpora: `real.json` holds checksums of all ids.

import Foundation
import KindredModelFiles
import KindredModelStore
import KindredTokenization
import Testing

struct RealVocabularyTests {
  /// What the reference makes of a corpus.
  struct Corpus: Decodable {
    let texts: Int
    let count: Int
    let checksum: String
    let first: [Int32]
    let last: [Int32]
  }

  static let data = URL(filePath: #filePath)
    .deletingLastPathComponent().appending(path: "../../../shared/data").standardizedFileURL

  static func isFetched(_ model: String) -> Bool { (try? ModelStore().path(of: model)) != nil }
  static var hasData: Bool { FileManager.default.fileExists(atPath: data.path) }

  func expected(_ model: String) throws -> [String: Corpus] {
    try #require(try Fixtures.decode([String: [String: Corpus]].self, "real.json")[model])
  }

  func tokenizer(_ model: String) throws -> Tokenizer {
    try Tokenizer(gguf: GGUFFile(path: ModelStore().path(of: model)))
  }

  func compare(_ texts: [String], with expected: Corpus?, _ tokenizer: Tokenizer) throws {
    let expected = try #require(expected)
    var checksum = Checksum()
    var ids: [Int32] = []
    for text in texts {
      let encoded = tokenizer.encode(text, addsBOS: false)
      checksum.add(encoded + [-1])
      ids += encoded
    }
    #expect(texts.count == expected.texts)
    #expect(ids.count == expected.count)
    #expect(Array(ids.prefix(8)) == expected.first)
    #expect(Array(ids.suffix(8)) == expected.last)
    #expect(Checksum.hexadecimal(checksum.value, digits: 16) == expected.checksum)
  }

  func compareRandom(_ key: String, _ model: String) throws {
    var generator = Generator(seed: 3)
    let texts = (0..<20_000).map { _ in generator.text() }
    try compare(texts, with: expected(key)["random"], tokenizer(model))
  }

  func compareCorpora(_ key: String, _ model: String) throws {
    let tokenizer = try tokenizer(model)
    let expected = try expected(key)
    let wiki = try String(contentsOf: Self.data.appending(path: "wikitext2/wiki.test.raw"), encoding: .utf8)
    try compare([wiki], with: expected["wikitext"], tokenizer)
    #expect(tokenizer.decode(tokenizer.encode(wiki, addsBOS: false)) == wiki)
    try compare(try humanEvalPrompts(), with: expected["humaneval"], tokenizer)
  }

  func humanEvalPrompts() throws -> [String] {
    struct Problem: Decodable { let prompt: String }
    let gzip = Process()
    gzip.executableURL = URL(filePath: "/usr/bin/env")
    gzip.arguments = ["gzip", "-dc", Self.data.appending(path: "humaneval/HumanEval.jsonl.gz").path]
    let output = Pipe()
    gzip.standardOutput = output
    try gzip.run()
    let lines = try #require(try output.fileHandleForReading.readToEnd()).split(separator: UInt8(ascii: "\n"))
    return try lines.map { try JSONDecoder().decode(Problem.self, from: $0).prompt }
  }

  @Test(.enabled(if: isFetched("qwen2.5-coder-0.5b"), "needs `kindred fetch qwen2.5-coder-0.5b`"))
  func randomTextsInQwen() throws { try compareRandom("qwen2", "qwen2.5-coder-0.5b") }

  @Test(.enabled(if: isFetched("smollm2-135m"), "needs `kindred fetch smollm2-135m`"))
  func randomTextsInSmolLM() throws { try compareRandom("smollm2", "smollm2-135m") }

  @Test(
    .enabled(if: isFetched("qwen2.5-coder-0.5b"), "needs `kindred fetch qwen2.5-coder-0.5b`"),
    .enabled(if: hasData, "needs ../shared/data"))
  func corporaInQwen() throws { try compareCorpora("qwen2", "qwen2.5-coder-0.5b") }

  @Test(
    .enabled(if: isFetched("smollm2-135m"), "needs `kindred fetch smollm2-135m`"),
    .enabled(if: hasData, "needs ../shared/data"))
  func corporaInSmolLM() throws { try compareCorpora("smollm2", "smollm2-135m") }

  @Test(.enabled(if: isFetched("gemma-3-270m"), "needs `kindred fetch gemma-3-270m`"))
  func randomTextsInGemma() throws { try compareRandom("gemma", "gemma-3-270m") }

  @Test(
    .enabled(if: isFetched("gemma-3-270m"), "needs `kindred fetch gemma-3-270m`"),
    .enabled(if: hasData, "needs ../shared/data"))
  func corporaInGemma() throws { try compareCorpora("gemma", "gemma-3-270m") }

  @Test(
    .enabled(
      if: isFetched("qwen2.5-coder-0.5b") && isFetched("qwen2.5-coder-1.5b"),
      "needs `kindred fetch qwen2.5-coder`"))
  func qwenPairSharesItsVocabulary() throws {
    let small = try tokenizer("qwen2.5-coder-0.5b")
    #expect(try small.firstDifference(from: tokenizer("qwen2.5-coder-1.5b")) == nil)
    #expect(small.vocabularySize == 151_936)
    #expect(small.endOfGenerationIDs == [151_643, 151_645])
  }
}
