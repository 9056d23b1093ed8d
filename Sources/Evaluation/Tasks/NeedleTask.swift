// A needle in a haystack (after Kamradt 2023): does the model find one sentence in a long text, wherever it stands?
//
// Data: a folder of essays as `.txt` files, or one text. The needle is a seven-digit number of a key, and prompts are
// worded as RULER's `niah_single_2` (arXiv 2404.06654), whose text is such essays too. Numbers are drawn by seed, so that
// no model knows them, and the score is 1 where the answer contains the number, else 0.

import KindredCompute

/// The share of needles found, by depth and length.
public struct NeedleTask: DataTask {
  public let name = "needle"
  public let data: TaskData

  /// Tokens of an answer.
  static let newTokens = 32

  /// Where needles are hidden: at every depth of every length.
  public struct Grid: Sendable, Hashable {
    /// Tokens of the prompt, at most.
    public var lengths = [1024, 2048, 4096]
    /// Percent of the text that precede the needle.
    public var depths = [0, 25, 50, 75, 100]
    /// Needles of each depth and length; each is in other text.
    public var repeats = 1
    /// What is drawn from it: the numbers, their keys and the essay that a text begins with.
    public var seed: UInt64 = 0

    public init() {}

    /// What is wrong with the grid, if anything; begins with the name of an option.
    public var problem: String? {
      func wrong(_ values: [Int], _ range: ClosedRange<Int>) -> String? {
        if values.isEmpty { return "expected at least one, found none" }
        if let value = values.first(where: { !range.contains($0) }) {
          return "expected \(range.lowerBound) to \(range.upperBound), found \(value)"
        }
        return Set(values).count == values.count ? nil : "expected each once, found one twice"
      }
      if let problem = wrong(lengths, 128...1 << 20) { return "lengths: \(problem)" }
      if let problem = wrong(depths, 0...100) { return "depths: \(problem)" }
      if let problem = wrong([repeats], 1...1000) { return "repeats: \(problem)" }
      return nil
    }
  }

  /// Reads the folder or file `data` and hides the needles.
  ///
  /// - Parameters:
  ///   - grid: where; `grid.problem` must be `nil`.
  ///   - countTokens: the number of tokens of a text, by the model's tokenizer.
  /// - Throws: `DataError`, or what `countTokens` throws.
  public init(
    data path: String, grid: Grid = Grid(), skipsBadItems: Bool = false, countTokens: (String) throws -> Int
  ) throws {
    precondition(grid.problem == nil, grid.problem ?? "")
    let paths = try DataPath(path) == .folder ? DataPath.files(in: path, endingIn: ".txt") : [path]
    var essays = ItemCollector<String>()
    for path in paths { try essays.addText(of: DataFile(path: path)) }
    try essays.check(path, skipsBadItems: skipsBadItems)

    let frame = try countTokens(Question(key: Self.keys[0], number: 1_000_000).prompt(text: [], depth: 0))
    var items: [TaskItem] = []
    for index in 0..<grid.repeats {
      var generator = SeededGenerator(seed: grid.seed &+ UInt64(index) &* 0x9E37_79B9)
      let start = Int.random(in: 0..<essays.items.count, using: &generator)
      let haystack = try Haystack(
        Array(essays.items[start...] + essays.items[..<start]), tokens: (grid.lengths.max() ?? 0) - frame,
        countTokens: countTokens)
      for length in grid.lengths {
        guard length - frame <= haystack.tokens else {
          throw DataError.unreadable(
            path: path, problem: "expected text of \(length - frame) tokens, found \(haystack.tokens)")
        }
        for depth in grid.depths {
          // From the place alone: an item does not depend on which others the grid has.
          let place = UInt64(length) << 32 | UInt64(depth) << 16 | UInt64(index)
          var generator = SeededGenerator(seed: grid.seed &* 0x9E37_79B9_7F4A_7C15 &+ place)
          let question = Question(
            key: Self.keys[Int.random(in: 0..<Self.keys.count, using: &generator)],
            number: Int.random(in: 1_000_000...9_999_999, using: &generator))
          let prompt = question.prompt(text: haystack.beginning(tokens: length - frame), depth: depth)
          items.append(
            TaskItem(
              id: "\(length):\(depth):\(index)",
              groups: ["length/\(length)", "depth/\(depth)", "length/\(length),depth/\(depth)"],
              request: .generate(prompt: prompt, maxTokens: Self.newTokens, stop: []),
              references: ["\(question.number)"]))
        }
      }
    }
    data = TaskData(items: items, badItems: essays.bad, files: essays.files)
  }

  public func scores(of response: TaskResponse, to item: TaskItem) throws -> [String: Double] {
    let answer = try response.requireText()
    return ["found": item.references.contains { answer.contains($0) } ? 1 : 0]
  }

  private static let keys = [
    "anchor", "basket", "candle", "desert", "engine", "forest", "garden", "hammer", "island", "jacket", "kettle",
    "ladder", "marble", "needle", "orchard", "pebble",
  ]

  /// A needle and how it is asked for.
  private struct Question {
    let key: String
    let number: Int

    /// - Parameters:
    ///   - text: the haystack's sentences, and the tokens of each.
    ///   - depth: percent of its tokens that precede the needle, at most.
    func prompt(text: ArraySlice<Haystack.Sentence>, depth: Int) -> String {
      var left = text.reduce(0) { $0 + $1.tokens } * depth / 100
      var split = text.startIndex
      while split < text.endIndex, text[split].tokens <= left {
        left -= text[split].tokens
        split += 1
      }
      let needle = "One of the special magic numbers for \(key) is: \(number)."
      let parts = [text[..<split].map(\.text).joined(), needle, text[split...].map(\.text).joined()]
      return """
        A special magic number is hidden within the following text. Make sure to memorize it. I will quiz you about the \
        number afterwards.
        \(parts.map(\.trimmed).filter { !$0.isEmpty }.joined(separator: " "))
        What is the special magic number for \(key) mentioned in the provided text? The special magic number for \(key) \
        mentioned in the provided text is
        """
    }
  }
}

/// A long text, cut into sentences.
private struct Haystack {
  /// A sentence with the white space before it.
  struct Sentence {
    let text: String
    let tokens: Int
  }

  private let sentences: [Sentence]
  /// Of all sentences, each counted alone.
  var tokens: Int { sentences.reduce(0) { $0 + $1.tokens } }

  /// The beginning of the essays, one after the other: `tokens` and at most one sentence more.
  init(_ essays: [String], tokens: Int, countTokens: (String) throws -> Int) rethrows {
    var sentences: [Sentence] = []
    var left = tokens
    for essay in essays where left > 0 {
      for text in Self.sentences(of: "\n\n" + essay) where left > 0 {
        let count = try countTokens(text)
        sentences.append(Sentence(text: text, tokens: count))
        left -= count
      }
    }
    self.sentences = sentences
  }

  /// The first sentences that have at most `tokens`.
  func beginning(tokens: Int) -> ArraySlice<Sentence> {
    var left = tokens
    return sentences.prefix { sentence in
      left -= sentence.tokens
      return left >= 0
    }
  }

  /// The text cut after each full stop, question mark and exclamation mark that white space follows.
  private static func sentences(of text: String) -> [String] {
    let bytes = Array(text.utf8)
    var start = 0
    var result: [String] = []
    for position in bytes.indices {
      let next = position + 1
      let isEnd = ".?!".utf8.contains(bytes[position]) && next < bytes.count && " \n\r\t".utf8.contains(bytes[next])
      if isEnd || next == bytes.count {
        result.append(String(decoding: bytes[start..<next], as: UTF8.self))
        start = next
      }
    }
    return result
  }
}
