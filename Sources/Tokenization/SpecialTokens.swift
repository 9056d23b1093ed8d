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

  /// Entries by first byte, the longest first.
  private var entries: [[Entry]] = Array(repeating: [], count: 256)

  init(_ list: [Entry]) {
    for entry in list {
      if let first = entry.content.first { entries[Int(first)].append(entry) }
    }
    for byte in entries.indices { entries[byte].sort { $0.content.count > $1.content.count } }
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
    let candidates = entries[Int(text[index])]
    guard !candidates.isEmpty else { return nil }
    return candidates.first { entry in
      guard includingControl || !entry.isControl, text.count - index >= entry.content.count else {
        return false
      }
      return entry.content.indices.allSatisfy { text[index + $0] == entry.content[$0] }
    }
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
