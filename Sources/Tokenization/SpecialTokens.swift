// Tokens that are matched in the text before it is cut into words: leftmost first, the longest among those that begin
// at the same place, as PyPI `tokenizers` does.

/// Finds added and special tokens in a text.
struct SpecialTokens: Sendable {
  /// An added token.
  struct Entry: Sendable {
    let id: Int32
    let content: [UInt8]
    /// Whether it is a control token, which content from outside must not produce.
    let isControl: Bool
    /// Whether it takes the white space before it, and after it, along.
    var stripsLeft = false
    var stripsRight = false
  }

  private let entries: [Entry]
  /// A trie of the contents. Its nodes are numbered from 0, the empty content; the key is node << 8 | next byte.
  private var children: [Int: Int] = [:]
  /// The position in `entries` of the content that ends at a node, or -1, [node].
  private var positions: [Int32] = [-1]
  /// Whether some content begins with a byte, [byte].
  private var begins = [Bool](repeating: false, count: 256)

  init(_ entries: [Entry]) {
    self.entries = entries
    for (position, entry) in entries.enumerated() where !entry.content.isEmpty {
      begins[Int(entry.content[0])] = true
      var node = 0
      for byte in entry.content {
        let key = node << 8 | Int(byte)
        node = children[key] ?? positions.count
        if node == positions.count {
          children[key] = node
          positions.append(-1)
        }
      }
      if positions[node] < 0 { positions[node] = Int32(position) }
    }
  }

  /// Calls `body` for the parts of `text` in order: with a token, or with `nil` for text in between.
  func split(
    _ text: UnsafeBufferPointer<UInt8>, includingControl: Bool, _ body: (Range<Int>, Int32?) -> Void
  ) {
    var textStart = 0
    var index = 0
    while index < text.count {
      guard let entry = match(text, at: index, includingControl: includingControl) else {
        index += 1
        continue
      }
      var end = index
      if entry.stripsLeft {
        while let length = Self.spaceLength(in: textStart..<end, { end - $0..<end }, of: text) {
          end -= length
        }
      }
      if end > textStart { body(textStart..<end, nil) }
      body(index..<index + entry.content.count, entry.id)
      index += entry.content.count
      if entry.stripsRight {
        while let length = Self.spaceLength(in: index..<text.count, { index..<index + $0 }, of: text) {
          index += length
        }
      }
      textStart = index
    }
    if textStart < text.count { body(textStart..<text.count, nil) }
  }

  private func match(_ text: UnsafeBufferPointer<UInt8>, at index: Int, includingControl: Bool) -> Entry? {
    guard begins[Int(text[index])] else { return nil }
    var longest: Entry?
    var node = 0
    for byte in text[index...] {
      guard let child = children[node << 8 | Int(byte)] else { break }
      node = child
      guard positions[node] >= 0 else { continue }
      let entry = entries[Int(positions[node])]
      if includingControl || !entry.isControl { longest = entry }
    }
    return longest
  }

  /// Bytes of the white space at one end of a part of `text`, or `nil` where there is none; `place` says where in
  /// `text` a character of so many bytes would be.
  private static func spaceLength(
    in part: Range<Int>, _ place: (Int) -> Range<Int>, of text: UnsafeBufferPointer<UInt8>
  ) -> Int? {
    (1...3).first { length in
      guard length <= part.count else { return false }
      let scalars = String(decoding: text[place(length)], as: UTF8.self).unicodeScalars
      return scalars.count == 1 && scalars.allSatisfy(\.properties.isWhitespace)
    }
  }
}
