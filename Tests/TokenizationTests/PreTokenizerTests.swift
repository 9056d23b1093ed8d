// Words of tricky and random strings, against PyPI `tokenizers` (`make_words.py`).

import Foundation
import KindredTokenization
import Testing

struct ExpectedWords: Decodable {
  struct Case: Decodable {
    let text: String
    /// Byte lengths of the words by the name of the pre-tokeniser.
    let lengths: [String: [Int]]

    init(from decoder: any Decoder) throws {
      let container = try decoder.singleValueContainer()
      let members = try container.decode([String: Member].self)
      text = members["text"]?.text ?? ""
      lengths = members.compactMapValues(\.lengths)
    }
  }

  /// A text or the lengths of its words.
  struct Member: Decodable {
    var text: String?
    var lengths: [Int]?

    init(from decoder: any Decoder) throws {
      let container = try decoder.singleValueContainer()
      lengths = try? container.decode([Int].self)
      text = lengths == nil ? try container.decode(String.self) : nil
    }
  }

  let patterns: [String: String]
  let cases: [Case]

  static func load() throws -> ExpectedWords {
    let url = try #require(Bundle.module.url(forResource: "Fixtures/words", withExtension: "json"))
    return try JSONDecoder().decode(ExpectedWords.self, from: Data(contentsOf: url))
  }
}

@Suite struct PreTokenizerTests {
  /// The words of `bytes`, which must cover them in order.
  func words(_ preTokenizer: PreTokenizer, _ bytes: [UInt8]) -> [[UInt8]] {
    var words: [[UInt8]] = []
    var end = 0
    // Exactly as much memory as there are bytes: the address sanitizer sees a read beyond.
    let copy = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: bytes.count)
    defer { copy.deallocate() }
    _ = copy.initialize(from: bytes)
    preTokenizer.forEachWord(in: UnsafeBufferPointer(copy)) {
      #expect($0.lowerBound == end && !$0.isEmpty)
      end = $0.upperBound
      words.append(Array(copy[$0]))
    }
    #expect(end == bytes.count)
    return words
  }

  func lengths(_ preTokenizer: PreTokenizer, _ text: String) -> [Int] {
    words(preTokenizer, Array(text.utf8)).map(\.count)
  }

  @Test(arguments: ["qwen2", "llama3", "gpt2", "smollm"])
  func scannersFindTheWordsOfTheReference(name: String) throws {
    let preTokenizer = try #require(PreTokenizer(ggufName: name))
    for expected in try ExpectedWords.load().cases {
      #expect(lengths(preTokenizer, expected.text) == expected.lengths[name], "of \(expected.text)")
    }
  }

  /// Later blocks are left out, of which PCRE2 and the reference may know different versions.
  @Test(arguments: ["qwen2", "llama3", "gpt2", "other"])
  func expressionsFindTheWordsOfTheReference(name: String) throws {
    let all = try ExpectedWords.load()
    let pattern = PreTokenizer.pattern(try CompiledPattern(try #require(all.patterns[name])))
    let cases = all.cases.filter { $0.text.unicodeScalars.allSatisfy { $0.value < 0x370 } }
    #expect(cases.count > 200)
    for expected in cases {
      #expect(lengths(pattern, expected.text) == expected.lengths[name], "\(expected.text.debugDescription)")
    }
  }

  @Test func publishedExpressionsAreScanned() throws {
    for (name, pattern) in try ExpectedWords.load().patterns {
      switch (name, try PreTokenizer(pattern: pattern)) {
      case ("qwen2", .qwen2), ("llama3", .llama3), ("gpt2", .gpt2), ("other", .pattern): break
      case (_, let found): Issue.record("\(name) became \(found)")
      }
    }
  }

  @Test func onlyKnownNamesAreAccepted() {
    for name in PreTokenizer.ggufNames { #expect(PreTokenizer(ggufName: name) != nil) }
    #expect(PreTokenizer(ggufName: "default") == nil)
    #expect(PreTokenizer(ggufName: "") == nil)
  }

  @Test func noneKeepsTheTextWhole() {
    #expect(lengths(.none, "two words") == [9])
    #expect(lengths(.none, "") == [])
  }

  @Test func matchesOfNothingCutTheText() throws {
    // As PyPI `tokenizers` cuts them.
    #expect(lengths(try PreTokenizer(pattern: "x*"), "abxxc") == [1, 1, 2, 1])
    #expect(lengths(try PreTokenizer(pattern: "(?=b)"), "abab") == [1, 2, 1])
    #expect(lengths(try PreTokenizer(pattern: "x*"), "é漢x") == [2, 3, 1])
  }

  @Test func faultyExpressionsAreNamed() {
    let error = #expect(throws: PreTokenizerError.self) { try PreTokenizer(pattern: "a(b") }
    #expect(error?.pattern == "a(b")
    #expect(error?.offset == 3)
    #expect(error?.problem.contains("parenthesis") == true)
  }

  @Test(arguments: ["qwen2", "llama3", "gpt2", "smollm", "none", "[a-z]+", "(?:)"])
  func bytesThatAreNotUTF8AreSymbols(name: String) throws {
    let named = name == "none" ? PreTokenizer.none : PreTokenizer(ggufName: name)
    let preTokenizer = try named ?? PreTokenizer(pattern: name)
    let leads: [UInt8] = [0x20, 0x27, 0x61, 0x80, 0xBF, 0xC0, 0xC3, 0xC5, 0xE0, 0xED, 0xF0, 0xF4, 0xF5, 0xFF]
    for count in 0..<400 {
      let bytes = (0..<count % 12).map { _ in
        Bool.random() ? leads[Int.random(in: 0..<leads.count)] : UInt8.random(in: 0...255)
      }
      _ = words(preTokenizer, bytes)
    }
    guard name == "qwen2" else { return }
    // A lone lead byte, an overlong slash, a surrogate, a scalar beyond Unicode: none joins the letters.
    let faults: [[UInt8]] = [[0xC3], [0xC0, 0xAF], [0xED, 0xA0, 0x80], [0xF4, 0x90, 0x80, 0x80]]
    for bytes in faults {
      #expect(words(preTokenizer, Array("ab".utf8) + bytes) == [Array("ab".utf8), bytes])
    }
  }

  @Test func backtrackingWithoutEndIsCutOff() throws {
    let text = String(repeating: "a", count: 60)
    #expect(lengths(try PreTokenizer(pattern: "(a+)+\\1?(?=b)"), text) == [60])
  }
}
