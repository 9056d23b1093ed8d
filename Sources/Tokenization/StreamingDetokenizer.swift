// Text from tokens as they come, in whole characters.

/// Turns tokens into text piece by piece. The pieces joined are what decoding all tokens at once gives.
public struct StreamingDetokenizer {
  private let tokenizer: Tokenizer
  private let skipsControlTokens: Bool
  /// Bytes that may be the beginning of a character.
  private var held: [UInt8] = []
  /// Whether a leading space is still to be taken away (SentencePiece).
  private var dropsSpace: Bool

  /// - Parameters:
  ///   - tokenizer: what gives the tokens their text.
  ///   - skipsControlTokens: whether control tokens are left out instead of shown.
  public init(_ tokenizer: Tokenizer, skipsControlTokens: Bool = true) {
    self.tokenizer = tokenizer
    self.skipsControlTokens = skipsControlTokens
    if case .characters(let prefix) = tokenizer.parts.scheme {
      dropsSpace = prefix != .none
    } else {
      dropsSpace = false
    }
  }

  /// The text that is complete with this token.
  public mutating func push(_ id: Int32) -> String {
    if tokenizer.isControl(id) {
      // A character does not go on across a control token.
      return flush() + (skipsControlTokens ? "" : String(decoding: tokenizer.bytes(of: id), as: UTF8.self))
    }
    held += tokenizer.bytes(of: id)
    if dropsSpace, let first = held.first {
      dropsSpace = false
      if first == 0x20 { held.removeFirst() }
    }
    let end = held.count - Self.incompleteSuffix(held)
    defer { held.removeFirst(end) }
    return String(decoding: held[..<end], as: UTF8.self)
  }

  /// What is held back, at the end: half a character becomes U+FFFD.
  public mutating func flush() -> String {
    defer { held = [] }
    return String(decoding: held, as: UTF8.self)
  }

  /// Bytes at the end that begin a character of which more may come.
  private static func incompleteSuffix(_ bytes: [UInt8]) -> Int {
    for length in 1...3 where length <= bytes.count {
      let first = bytes[bytes.count - length]
      if first & 0xC0 == 0x80 { continue }
      let needed = first >= 0xF0 && first < 0xF5 ? 4 : first >= 0xE0 ? 3 : first >= 0xC2 ? 2 : 1
      guard first < 0xF5, needed > length else { return 0 }
      return isPossibleStart(bytes.suffix(length)) ? length : 0
    }
    return 0
  }

  /// Whether the first two of some bytes can begin a character: not an overlong form, a surrogate or beyond U+10FFFF.
  private static func isPossibleStart(_ bytes: ArraySlice<UInt8>) -> Bool {
    let start = bytes.startIndex
    guard bytes.count > 1 else { return true }
    let second = bytes[start + 1]
    return switch bytes[start] {
    case 0xE0: second >= 0xA0
    case 0xED: second < 0xA0
    case 0xF0: second >= 0x90
    case 0xF4: second < 0x90
    default: true
    }
  }
}
