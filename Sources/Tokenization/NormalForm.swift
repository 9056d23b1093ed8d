// Unicode's normal form C (Unicode Standard Annex 15) as PyPI `tokenizers` computes it.
//
// Not left to Foundation: that of Swift 6.3 takes some characters beyond U+FFFF for others when an accent follows
// (U+10041 and U+0300 become À), and follows a later Unicode than the reference. Checked in `NormalFormTests` against
// the reference, for every code point and for random texts.

/// Brings text into Unicode's normal form C.
package struct NormalForm: Sendable {
  /// The form C.
  package static let c = NormalForm()

  /// One or two code points for each that decomposes; the second is 0 where there is one.
  private var decompositions: [UInt32: (UInt32, UInt32)] = [:]
  /// The composite of two code points, the first one << 32 | the second one.
  private var composites: [UInt64: UInt32] = [:]
  /// The combining class of those code points where it is not 0.
  private var classes: [UInt32: UInt8] = [:]
  /// A bit for each code point below U+30000: whether text with it may have another normal form.
  private var unsettled = [UInt64](repeating: 0, count: 0x30000 / 64)

  private init() {
    func triples(_ table: [UInt32]) -> some Sequence<(UInt32, UInt32, UInt32)> {
      stride(from: 0, to: table.count, by: 3).lazy.map { (table[$0], table[$0 + 1], table[$0 + 2]) }
    }
    for (character, first, second) in triples(NormalFormTables.composites) {
      decompositions[character] = (first, second)
      composites[UInt64(first) << 32 | UInt64(second)] = character
      unsettle(second)
    }
    for (character, first, second) in triples(NormalFormTables.lost) {
      decompositions[character] = (first, second)
      unsettle(character)
    }
    for index in stride(from: 0, to: NormalFormTables.singles.count, by: 2) {
      decompositions[NormalFormTables.singles[index]] = (NormalFormTables.singles[index + 1], 0)
      unsettle(NormalFormTables.singles[index])
    }
    for (run, next) in zip(NormalFormTables.classes, NormalFormTables.classes.dropFirst())
    where run & 0xFF != 0 {
      for character in run >> 8..<next >> 8 {
        classes[character] = UInt8(run & 0xFF)
        unsettle(character)
      }
    }
    for character in Hangul.vowels { unsettle(character) }
    for character in Hangul.finals { unsettle(character) }
  }

  private mutating func unsettle(_ character: UInt32) {
    unsettled[Int(character >> 6)] |= 1 << UInt64(character & 63)
  }

  /// The normal form of valid UTF-8 text, or `nil` where it is the text itself.
  ///
  /// Only what stands around unsettled characters is looked at more closely: any other one neither changes nor joins
  /// what is before it.
  package func normalized(_ text: UnsafeBufferPointer<UInt8>) -> [UInt8]? {
    var result: [UInt8] = []
    var copied = 0
    var lastSettled = 0
    var index = 0
    while index < text.count {
      let start = index
      while index < text.count, isUnsettled(text, at: index) { index += Self.length(text[index]) }
      if index > start {
        result += text[copied..<lastSettled]
        let part = String(decoding: text[lastSettled..<min(index, text.count)], as: UTF8.self)
        appendUTF8(of: composed(decomposed(part)), to: &result)
        copied = min(index, text.count)
      }
      lastSettled = index
      if index < text.count { index += Self.length(text[index]) }
    }
    guard copied > 0 else { return nil }
    return result + text[copied...]
  }

  private func appendUTF8(of characters: [Character], to result: inout [UInt8]) {
    for character in characters {
      // Decomposing and composing lead from scalars to scalars.
      result += UTF8.encode(Unicode.Scalar(character.scalar) ?? "\u{FFFD}") ?? UTF8.encodedReplacementCharacter
    }
  }

  @inline(__always)
  private func isUnsettled(_ text: UnsafeBufferPointer<UInt8>, at index: Int) -> Bool {
    // Below U+0300, whose first byte is 0xCC, every character is settled.
    text[index] >= 0xCC && isUnsettledBeyondLatin(text, at: index)
  }

  private func isUnsettledBeyondLatin(_ text: UnsafeBufferPointer<UInt8>, at index: Int) -> Bool {
    let length = Self.length(text[index])
    guard index + length <= text.count else { return false }
    var scalar = Int(text[index]) & (0x7F >> length)
    for next in index + 1..<index + length { scalar = scalar << 6 | Int(text[next] & 0x3F) }
    return scalar < 0x30000 && unsettled[scalar >> 6] >> UInt64(scalar & 63) & 1 == 1
  }

  /// Bytes of the character that begins with `byte`.
  @inline(__always)
  private static func length(_ byte: UInt8) -> Int { byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4 }

  /// A code point with its combining class.
  private struct Character {
    let scalar: UInt32
    let order: UInt8
  }

  /// The characters of a text taken apart, marks in the order of their classes.
  private func decomposed(_ text: String) -> [Character] {
    var result: [Character] = []
    result.reserveCapacity(text.utf8.count / 2)
    var markStart: Int?
    for scalar in text.unicodeScalars {
      let start = result.count
      appendDecomposition(of: scalar.value, to: &result)
      for index in start..<result.count {
        if result[index].order > 0 {
          markStart = markStart ?? index
        } else if let first = markStart {
          result[first..<index].sort { $0.order < $1.order }
          markStart = nil
        }
      }
    }
    if let first = markStart { result[first...].sort { $0.order < $1.order } }
    return result
  }

  private func appendDecomposition(of scalar: UInt32, to result: inout [Character]) {
    if let (first, second) = decompositions[scalar] ?? Hangul.decomposition(of: scalar) {
      appendDecomposition(of: first, to: &result)
      if second != 0 { appendDecomposition(of: second, to: &result) }
    } else {
      result.append(Character(scalar: scalar, order: classes[scalar] ?? 0))
    }
  }

  /// Puts together what composes: a character with the last one of class 0, unless one of its class or of a higher
  /// one stands between.
  private func composed(_ characters: [Character]) -> [Character] {
    var result: [Character] = []
    result.reserveCapacity(characters.count)
    var base: Int?
    for character in characters {
      if let base, result.count - 1 == base || result[result.count - 1].order < character.order,
        let composite = composite(result[base].scalar, character.scalar)
      {
        result[base] = Character(scalar: composite, order: 0)
        continue
      }
      if character.order == 0 { base = result.count }
      result.append(character)
    }
    return result
  }

  private func composite(_ first: UInt32, _ second: UInt32) -> UInt32? {
    composites[UInt64(first) << 32 | UInt64(second)] ?? Hangul.composite(first, second)
  }
}

/// Korean syllables, which compose by arithmetic.
private enum Hangul {
  static let syllables: Range<UInt32> = 0xAC00..<0xD7A4
  static let initials: Range<UInt32> = 0x1100..<0x1113
  static let vowels: Range<UInt32> = 0x1161..<0x1176
  static let finals: Range<UInt32> = 0x11A8..<0x11C3
  /// Finals and none.
  static let finalCount: UInt32 = 28

  static func decomposition(of syllable: UInt32) -> (UInt32, UInt32)? {
    guard syllables.contains(syllable) else { return nil }
    let (open, final) = (syllable - syllables.lowerBound).quotientAndRemainder(dividingBy: finalCount)
    if final > 0 { return (syllable - final, finals.lowerBound + final - 1) }
    let (initial, vowel) = open.quotientAndRemainder(dividingBy: UInt32(vowels.count))
    return (initials.lowerBound + initial, vowels.lowerBound + vowel)
  }

  static func composite(_ first: UInt32, _ second: UInt32) -> UInt32? {
    if initials.contains(first), vowels.contains(second) {
      let open = (first - initials.lowerBound) * UInt32(vowels.count) + second - vowels.lowerBound
      return syllables.lowerBound + open * finalCount
    }
    if syllables.contains(first), (first - syllables.lowerBound) % finalCount == 0, finals.contains(second) {
      return first + second - finals.lowerBound + 1
    }
    return nil
  }
}
