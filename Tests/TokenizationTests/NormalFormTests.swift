// Normal form C against PyPI `tokenizers` (`make_tokenizers.py`), for every code point that might have another one.

import KindredTokenization
import Testing

struct NormalFormTests {
  static func normalized(_ text: String) -> String {
    var text = text
    return text.withUTF8 { NormalForm.c.normalized($0) }.map { String(decoding: $0, as: UTF8.self) } ?? text
  }

  @Test func everyCodePointIsNormalizedAsByTheReference() throws {
    let expected = try Fixtures.decode([String: String].self, "normal_forms.json")
    #expect(expected.count == 5)
    for (key, checksum) in expected {
      // By scalars: a mark after the bar would be one character with it.
      let context = key.unicodeScalars.split(separator: "|", maxSplits: 1, omittingEmptySubsequences: false)
        .map(String.init)
      var found = Checksum()
      for start in stride(from: 0 as UInt32, to: 0x30000, by: 256) {
        let scalars = (start..<start + 256).compactMap { Unicode.Scalar($0) }
        let text = scalars.map { context[0] + String($0) + context[1] + "\n" }.joined()
        found.add(Self.normalized(text).utf8.map(Int32.init))
      }
      #expect(Checksum.hexadecimal(found.value, digits: 16) == checksum, "\(key.debugDescription)")
    }
  }

  /// Where Foundation of Swift 6.3 writes À.
  @Test func charactersBeyondTheBasicPlaneAreNoLetters() {
    let text = "\u{10041}\u{300}"
    #expect(Self.normalized(text).unicodeScalars.elementsEqual(text.unicodeScalars))
  }

  @Test(.timeLimit(.minutes(1))) func longRunsOfMarksTakeNoQuadraticTime() {
    let text = "a" + String(repeating: "\u{301}\u{316}", count: 200_000)
    #expect(Self.normalized(text).unicodeScalars.count == 400_000)
  }
}
