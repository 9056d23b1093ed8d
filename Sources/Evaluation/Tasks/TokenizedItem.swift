// A task's items as tokens: what precedes the answer, what may follow, and what is left out.

import Foundation
import KindredTokenization

/// What is wrong with a task or one of its items.
public struct TaskError: Error, Sendable, CustomStringConvertible {
  public let description: String

  public init(description: String) { self.description = description }

  init(_ item: TaskItem, _ problem: String) { description = "item \(item.id): \(problem)" }
}

/// An item as a model reads it.
package struct TokenizedItem: Sendable, Hashable {
  /// The item's place in the task.
  package var index: Int
  /// The prompt; of a comparison, both texts.
  package var sequences: [[Int32]]
  /// What may follow the prompt, each at least one token; empty unless one is to be chosen.
  package var continuations: [[Int32]] = []
  /// The most tokens that follow the prompt.
  package var room = 0
  /// Whether a middle was left out.
  package var isTruncated = false

  /// The tokens of the longest sequence with what follows it.
  package var length: Int { (sequences.map(\.count).max() ?? 0) + room }
}

/// Reads items.
package struct ItemTokenizer {
  package let tokenizer: Tokenizer
  /// Tokens that a prompt and what follows it may have together.
  package let context: Int

  package init(tokenizer: Tokenizer, context: Int) {
    self.tokenizer = tokenizer
    self.context = context
  }

  /// The items of a task in order.
  ///
  /// - Throws: `TaskError` for an item that leaves nothing to ask, or asks for more than the context.
  package func items(_ items: [TaskItem]) throws(TaskError) -> [TokenizedItem] {
    var result: [TokenizedItem] = []
    for (index, item) in items.enumerated() { result.append(try read(item, index: index)) }
    return result
  }

  private func read(_ item: TaskItem, index: Int) throws(TaskError) -> TokenizedItem {
    var result = TokenizedItem(index: index, sequences: [])
    switch item.request {
    case .choose(let prompt, let continuations):
      guard !continuations.isEmpty else { throw TaskError(item, "expected continuations to choose from, found none") }
      let (shared, moved) = Self.split(prompt)
      result.sequences = [tokenizer.encode(shared)]
      for continuation in continuations {
        // As lm-evaluation-harness: what the joined text has after as many tokens as the prompt has.
        let tokens = tokenizer.encode(shared + moved + continuation).dropFirst(result.sequences[0].count)
        guard !tokens.isEmpty else {
          throw TaskError(item, "expected continuations of at least one token, found \"\(continuation)\"")
        }
        result.continuations.append(Array(tokens))
      }
      result.room = result.continuations.map(\.count).max() ?? 0
    case .generate(let prompt, let maxTokens, _):
      guard maxTokens > 0 else { throw TaskError(item, "expected at least 1 token to generate, found \(maxTokens)") }
      result.sequences = [tokenizer.encode(prompt)]
      result.room = maxTokens
    case .compare(let first, let second):
      result.sequences = [tokenizer.encode(first), tokenizer.encode(second)]
    }
    guard result.room < context else {
      throw TaskError(item, "expected an answer within the context of \(context) tokens, found one of \(result.room)")
    }
    for number in result.sequences.indices {
      guard !result.sequences[number].isEmpty else { throw TaskError(item, "expected a prompt, found an empty one") }
      guard result.sequences[number].count > context - result.room else { continue }
      result.sequences[number] = Self.withoutMiddle(result.sequences[number], limit: context - result.room)
      result.isTruncated = true
    }
    return result
  }

  /// The prompt without the spaces at its end, and these: they belong to the continuation, because tokens begin with
  /// spaces.
  private static func split(_ prompt: String) -> (String, String) {
    let scalars = prompt.unicodeScalars
    let end = scalars.lastIndex { !$0.isSpace }.map { scalars.index(after: $0) } ?? scalars.startIndex
    return (String(scalars[..<end]), String(scalars[end...]))
  }

  /// As LongBench shortens prompts: the first half of what fits, and the last.
  package static func withoutMiddle(_ tokens: [Int32], limit: Int) -> [Int32] {
    guard tokens.count > limit else { return tokens }
    return Array(tokens.prefix(limit / 2) + tokens.suffix(limit - limit / 2))
  }
}

extension Unicode.Scalar {
  /// Whether Python's `str.isspace` and `\s` count it as space.
  var isSpace: Bool { properties.isWhitespace || (0x1C...0x1F).contains(value) }
}

/// Items that are answered together: their prompts begin with the same tokens, and are read in common passes.
package struct TaskUnit: Sendable, Hashable {
  /// Units of one group begin with the same header.
  package var group: Int
  /// The number of tokens with which all prompts of the group begin.
  package var headerLength: Int
  package var items: [TokenizedItem]

  package var header: ArraySlice<Int32> { items[0].sequences[0].prefix(headerLength) }
}

extension TaskUnit {
  /// A shorter header is not worth a pass of its own.
  private static let leastHeader = 16

  /// Divides items, which keep their order, into units. They depend on the items alone, so that an interrupted run goes
  /// on with the same ones.
  ///
  /// - Parameters:
  ///   - items: the items.
  ///   - sequences: sequences of a unit, at most, unless one item has more.
  ///   - bytesPerPosition: bytes of keys and values.
  ///   - byteLimit: bytes of a unit, at most, unless one item has more.
  package static func units(
    of items: [TokenizedItem], sequences: Int, bytesPerPosition: Int, byteLimit: Int
  ) -> [TaskUnit] {
    var units: [TaskUnit] = []
    for (group, range) in groups(of: items).enumerated() {
      let header = headerLength(of: items[range])
      var unit = TaskUnit(group: group, headerLength: header, items: [])
      for item in items[range] {
        let joined = unit.items + [item]
        let bytes = joined.reduce(0) { $0 + $1.length * $1.sequences.count } * bytesPerPosition
        if !unit.items.isEmpty, joined.reduce(0, { $0 + $1.sequences.count }) > sequences || bytes > byteLimit {
          units.append(unit)
          unit.items = [item]
        } else {
          unit.items = joined
        }
      }
      units.append(unit)
    }
    return units
  }

  /// Items that follow each other and are asked alike. A new group begins where neighbours share less than half of what
  /// they share with others: at the next subject's header.
  private static func groups(of items: [TokenizedItem]) -> [Range<Int>] {
    let shared = zip(items, items.dropFirst()).map { $0.sharedLength(with: $1) }
    var groups: [Range<Int>] = []
    var start = 0
    for index in shared.indices {
      let neighbours = [index - 1, index + 1].filter(shared.indices.contains).map { shared[$0] }
      let isBorder = neighbours.contains { 2 * shared[index] < $0 }
      if isBorder || !items[index].isAsked(like: items[index + 1]) {
        groups.append(start..<index + 1)
        start = index + 1
      }
    }
    if start < items.count { groups.append(start..<items.count) }
    return groups
  }

  private static func headerLength(of items: ArraySlice<TokenizedItem>) -> Int {
    guard items.count > 1 else { return 0 }
    let shared = zip(items, items.dropFirst()).map { $0.sharedLength(with: $1) }.min() ?? 0
    return shared < leastHeader ? 0 : shared
  }
}

extension TokenizedItem {
  fileprivate func isAsked(like other: TokenizedItem) -> Bool {
    (sequences.count, continuations.isEmpty) == (other.sequences.count, other.continuations.isEmpty)
  }

  /// The number of tokens with which both prompts begin, and after which both have more.
  fileprivate func sharedLength(with other: TokenizedItem) -> Int {
    guard sequences.count == 1, other.sequences.count == 1 else { return 0 }
    let (first, second) = (sequences[0], other.sequences[0])
    return min(zip(first, second).prefix { $0 == $1 }.count, first.count - 1, second.count - 1)
  }
}
