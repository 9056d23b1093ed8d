// How text is cut into words before byte-pair merging. The published pre-tokenisers of the Qwen2, Llama 3,
// GPT-2 and SmolLM families are hand-written scanners (`PreTokenizer+Scanner.swift`); PCRE2 runs any other
// regular expression (`PreTokenizer+Pattern.swift`). The reference is PyPI `tokenizers`, whose regular
// expressions Oniguruma runs.

/// How text is cut into words before byte-pair merging.
public enum PreTokenizer: Sendable {
  /// Qwen2 and later: single digits, a symbol or space before a word belongs to it.
  case qwen2
  /// Llama 3: as ``qwen2``, with numbers in groups of up to three digits.
  case llama3
  /// GPT-2: numbers whole, only a space belongs to the word after it.
  case gpt2
  /// SmolLM: each digit apart, then ``gpt2`` between them.
  case smollm
  /// Any other regular expression.
  case pattern(CompiledPattern)
  /// The whole text is one word.
  case none

  /// The values of `tokenizer.ggml.pre` that are known.
  public static var ggufNames: [String] { byGGUFName.map(\.name) }

  private static let byGGUFName: [(name: String, preTokenizer: PreTokenizer)] = [
    ("qwen2", .qwen2), ("llama-bpe", .llama3), ("llama3", .llama3), ("llama-v3", .llama3),
    ("gpt-2", .gpt2), ("gpt2", .gpt2), ("smollm", .smollm),
  ]

  /// The pre-tokeniser that `tokenizer.ggml.pre` of a GGUF file names, or nil if it is none of ``ggufNames``.
  public init?(ggufName: String) {
    guard let known = Self.byGGUFName.first(where: { $0.name == ggufName }) else { return nil }
    self = known.preTokenizer
  }

  /// The pre-tokeniser for a regular expression of a `tokenizer.json`: a scanner for exactly the published
  /// ones, PCRE2 for all others. Throws where PCRE2 cannot compile the expression.
  public init(pattern: String) throws(PreTokenizerError) {
    switch pattern {
    case Self.qwen2Pattern: self = .qwen2
    case Self.llama3Pattern: self = .llama3
    case Self.gpt2Pattern: self = .gpt2
    default: self = .pattern(try CompiledPattern(pattern))
    }
  }

  /// Calls `body` with the byte range of each word of UTF-8 text, in order; together they cover the text, for
  /// what lies between two matches of a regular expression is a word, too. A byte that is not UTF-8 counts as
  /// a symbol.
  public func forEachWord(in text: UnsafeBufferPointer<UInt8>, _ body: (Range<Int>) -> Void) {
    guard !text.isEmpty else { return }
    switch self {
    case .none: body(0..<text.count)
    case .pattern(let pattern): pattern.forEachWord(in: text, body)
    case .qwen2, .llama3, .gpt2, .smollm:
      UnicodeClass.table.withUnsafeBufferPointer { classes in
        let scanner = WordScanner(text: text, classes: classes, end: text.count)
        switch self {
        case .qwen2: scanner.forEachWord(from: 0, body) { $0.qwenWordEnd(from: $1, maxDigits: 1) }
        case .llama3: scanner.forEachWord(from: 0, body) { $0.qwenWordEnd(from: $1, maxDigits: 3) }
        case .smollm: scanner.forEachWordBetweenDigits(body)
        default: scanner.forEachWord(from: 0, body) { $0.gptWordEnd(from: $1) }
        }
      }
    }
  }

  private static let qwen2Pattern =
    #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"#
    + #"|\s*[\r\n]+|\s+(?!\S)|\s+"#
  private static let llama3Pattern =
    #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"#
    + #"|\s*[\r\n]+|\s+(?!\S)|\s+"#
  private static let gpt2Pattern =
    #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#
}

/// A regular expression that does not compile.
public struct PreTokenizerError: Error, Equatable, CustomStringConvertible {
  /// The expression.
  public let pattern: String
  /// Where in its UTF-8 the fault was found, in bytes.
  public let offset: Int
  /// What PCRE2 found.
  public let problem: String

  public var description: String {
    "expected a regular expression, found a fault at byte \(offset) of \"\(pattern)\": \(problem)"
  }
}
