// The pre-tokenisers of the Qwen2, Llama 3, GPT-2 and SmolLM families in one pass over UTF-8. Each word-end
// function follows the alternatives of its regular expression in their order; `PreTokenizerTests` compares
// the words with those of PyPI `tokenizers`.

/// Finds word ends in `text[..<end]`.
struct WordScanner {
  let text: UnsafeBufferPointer<UInt8>
  /// `UnicodeClass.table`.
  let classes: UnsafeBufferPointer<UInt8>
  /// Where the text ends for the scanner.
  var end: Int

  /// Calls `body` with each word of `text[start..<end]`; `wordEnd` must return more than its argument.
  @inline(__always)
  func forEachWord(
    from start: Int, _ body: (Range<Int>) -> Void, wordEnd: (borrowing WordScanner, Int) -> Int
  ) {
    var start = start
    while start < end {
      let next = wordEnd(self, start)
      body(start..<next)
      start = next
    }
  }

  /// SmolLM: every number is a word, and what lies between two is cut as if it were a text by itself.
  func forEachWordBetweenDigits(_ body: (Range<Int>) -> Void) {
    var part = self
    var start = 0
    var index = 0
    while index < end {
      let character = character(at: index)
      if character.kind == UnicodeClass.number || character.kind == UnicodeClass.digitsOnly {
        part.end = index
        part.forEachWord(from: start, body) { $0.gptWordEnd(from: $1) }
        body(index..<character.end)
        start = character.end
      }
      index = character.end
    }
    part.end = end
    part.forEachWord(from: start, body) { $0.gptWordEnd(from: $1) }
  }

  /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,maxDigits}| ?[^\s\p{L}\p{N}]+[\r\n]*`
  /// `|\s*[\r\n]+|\s+(?!\S)|\s+`
  func qwenWordEnd(from start: Int, maxDigits: Int) -> Int {
    let first = character(at: start)
    if first.kind == UnicodeClass.letter { return runEnd(of: UnicodeClass.letter, from: first.end) }
    if first.kind == UnicodeClass.number {
      return runEnd(of: UnicodeClass.number, from: first.end, atMost: maxDigits - 1)
    }
    if let end = contractionEnd(from: start, ignoringCase: true) { return end }
    if first.end < end, !isNewline(text[start]) {
      let second = character(at: first.end)
      if second.kind == UnicodeClass.letter { return runEnd(of: UnicodeClass.letter, from: second.end) }
      if text[start] == Self.blank, isSymbol(second.kind) {
        return newlinesEnd(from: symbolsEnd(from: second.end))
      }
    }
    if isSymbol(first.kind) { return newlinesEnd(from: symbolsEnd(from: first.end)) }
    return spacesEnd(from: start, newlinesFirst: true)
  }

  /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
  func gptWordEnd(from start: Int) -> Int {
    if let end = contractionEnd(from: start, ignoringCase: false) { return end }
    var first = character(at: start)
    if text[start] == Self.blank, first.end < end { first = character(at: first.end) }
    switch first.kind {
    case UnicodeClass.letter, UnicodeClass.number: return runEnd(of: first.kind, from: first.end)
    case UnicodeClass.space: return spacesEnd(from: start, newlinesFirst: false)
    default: return symbolsEnd(from: first.end)
    }
  }

  /// The end of `'s|'t|'re|'ve|'m|'ll|'d`.
  private func contractionEnd(from start: Int, ignoringCase: Bool) -> Int? {
    guard text[start] == UInt8(ascii: "'"), start + 1 < end else { return nil }
    // Of all bytes only a letter's two cases become that letter when this bit is set.
    let caseBit: UInt8 = ignoringCase ? 0x20 : 0
    let second = text[start + 1]
    let third = start + 2 < end ? text[start + 2] : 0
    switch second | caseBit {
    case UInt8(ascii: "s"), UInt8(ascii: "t"), UInt8(ascii: "m"), UInt8(ascii: "d"): return start + 2
    case UInt8(ascii: "r"), UInt8(ascii: "v"): return third | caseBit == UInt8(ascii: "e") ? start + 3 : nil
    case UInt8(ascii: "l"): return third | caseBit == UInt8(ascii: "l") ? start + 3 : nil
    // U+017F, the long s, is a case of s.
    default: return ignoringCase && second == 0xC5 && third == 0xBF ? start + 3 : nil
    }
  }

  /// The end of the run of at most `limit` characters of class `kind` that begins at `start`.
  @inline(__always)
  private func runEnd(of kind: UInt8, from start: Int, atMost limit: Int = .max) -> Int {
    var index = start
    var left = limit
    while index < end, left > 0 {
      let character = character(at: index)
      guard character.kind == kind else { break }
      index = character.end
      left -= 1
    }
    return index
  }

  /// The end of `[^\s\p{L}\p{N}]*`.
  private func symbolsEnd(from start: Int) -> Int {
    var index = start
    while index < end {
      let character = character(at: index)
      guard isSymbol(character.kind) else { break }
      index = character.end
    }
    return index
  }

  /// The end of `[\r\n]*`.
  private func newlinesEnd(from start: Int) -> Int {
    var index = start
    while index < end, isNewline(text[index]) { index += 1 }
    return index
  }

  /// The end of `\s+(?!\S)|\s+` at a space, after `\s*[\r\n]+` if `newlinesFirst`.
  private func spacesEnd(from start: Int, newlinesFirst: Bool) -> Int {
    var index = start
    var last = start
    var newline: Int?
    while index < end {
      let character = character(at: index)
      guard character.kind == UnicodeClass.space else { break }
      if isNewline(text[index]) { newline = character.end }
      last = index
      index = character.end
    }
    if newlinesFirst, let newline { return newline }
    // A run before a word leaves it its last space, unless that is the whole run.
    return index == end || last == start ? index : last
  }

  private static let blank = UInt8(ascii: " ")

  @inline(__always)
  private func isNewline(_ byte: UInt8) -> Bool { byte == UInt8(ascii: "\n") || byte == UInt8(ascii: "\r") }

  @inline(__always)
  private func isSymbol(_ kind: UInt8) -> Bool {
    kind == UnicodeClass.symbol || kind == UnicodeClass.digitsOnly
  }

  /// The class of the character at `index`, which is before `end`, and where it ends.
  @inline(__always)
  private func character(at index: Int) -> (kind: UInt8, end: Int) {
    let byte = text[index]
    return byte < 0x80 ? (classes[Int(byte)], index + 1) : wideCharacter(at: index)
  }

  /// ``character(at:)`` beyond ASCII. A byte that begins no UTF-8 character before `end` is a symbol.
  private func wideCharacter(at index: Int) -> (kind: UInt8, end: Int) {
    let lead = text[index]
    let length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4
    guard lead >= 0xC2, lead <= 0xF4, end - index >= length else { return (UnicodeClass.symbol, index + 1) }
    var scalar = Int(lead) & (0x7F >> length)
    for next in index + 1..<index + length {
      guard text[next] & 0xC0 == 0x80 else { return (UnicodeClass.symbol, index + 1) }
      scalar = scalar << 6 | Int(text[next] & 0x3F)
    }
    // Shorter forms exist below these limits; `Unicode.Scalar` refuses surrogates and what is beyond Unicode.
    let least = length == 4 ? 0x10000 : length == 3 ? 0x800 : 0x80
    guard scalar >= least, Unicode.Scalar(UInt32(scalar)) != nil else {
      return (UnicodeClass.symbol, index + 1)
    }
    return (scalar < classes.count ? classes[scalar] : UnicodeClass.symbol, index + length)
  }
}
