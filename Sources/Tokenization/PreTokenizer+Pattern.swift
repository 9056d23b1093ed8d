// Pre-tokenisers given as regular expressions, by PCRE2 with its just-in-time compiler. Checked against PyPI
// `tokenizers` in `PreTokenizerTests`. PCRE2 and Oniguruma may follow different versions of Unicode, so that
// recently added letters can fall into different words.

import CPCRE2

/// A regular expression, compiled. `^` and `$` match at every line, as they do in PyPI `tokenizers`.
public final class CompiledPattern: Sendable {
  // PCRE2 only reads compiled code while matching, so threads may share it.
  private nonisolated(unsafe) let code: OpaquePointer

  /// Compiles `pattern`; throws where it is not a regular expression that PCRE2 knows.
  public init(_ pattern: String) throws(PreTokenizerError) {
    var problem: Int32 = 0
    var offset = 0
    var source = pattern
    let options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE
    let code = source.withUTF8 { pcre2_compile_8($0.baseAddress, $0.count, options, &problem, &offset, nil) }
    guard let code else {
      throw PreTokenizerError(pattern: pattern, offset: offset, problem: Self.message(problem))
    }
    self.code = code
    // Where the processor or the system allows no just-in-time code, PCRE2 interprets the expression.
    _ = pcre2_jit_compile_8(code, PCRE2_JIT_COMPLETE)
  }

  deinit { pcre2_code_free_8(code) }

  private static func message(_ code: Int32) -> String {
    withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 256) {
      let count = pcre2_get_error_message_8(code, $0.baseAddress, $0.count)
      return String(decoding: $0.prefix(max(0, Int(count))), as: UTF8.self)
    }
  }

  /// Calls `body` with each match and with what lies between two. A byte that is not UTF-8 is a word, before
  /// and after which the text is matched apart. Where PCRE2 gives up (its limit of backtracking), the rest of
  /// the text is one word.
  func forEachWord(in text: UnsafeBufferPointer<UInt8>, _ body: (Range<Int>) -> Void) {
    guard let found = pcre2_match_data_create_8(1, nil) else { return body(0..<text.count) }
    defer { pcre2_match_data_free_8(found) }
    var start = 0
    while start < text.count {
      let rest = UnsafeBufferPointer(rebasing: text[start...])
      let valid = validPrefix(of: rest, found)
      forEachWord(inValid: UnsafeBufferPointer(rebasing: rest[..<valid]), found) { [start] in
        body(start + $0.lowerBound..<start + $0.upperBound)
      }
      if valid < rest.count { body(start + valid..<start + valid + 1) }
      start += valid + 1
    }
  }

  /// How many bytes of `text` are UTF-8 before the first that is not.
  private func validPrefix(of text: UnsafeBufferPointer<UInt8>, _ found: OpaquePointer) -> Int {
    // PCRE2 checks the subject before it matches, all of it, even where it may match only at its end.
    let status = pcre2_match_8(code, text.baseAddress, text.count, 0, PCRE2_ANCHORED, found, nil)
    let isFault = status <= PCRE2_ERROR_UTF8_ERR1 && status >= PCRE2_ERROR_UTF8_ERR21
    return isFault ? pcre2_get_startchar_8(found) : text.count
  }

  private func forEachWord(
    inValid text: UnsafeBufferPointer<UInt8>, _ found: OpaquePointer, _ body: (Range<Int>) -> Void
  ) {
    var wordStart = 0
    var searchStart = 0
    while searchStart < text.count, match(text, from: searchStart, found) {
      let bounds = pcre2_get_ovector_pointer_8(found)
      guard let start = bounds?[0], let end = bounds?[1], start >= wordStart, end >= start else { break }
      if start > wordStart { body(wordStart..<start) }
      if end > start { body(start..<end) }
      wordStart = end
      searchStart = end
      // After a match of nothing the search goes on behind the next character.
      if end == start, end < text.count {
        searchStart += 1
        while searchStart < text.count, text[searchStart] & 0xC0 == 0x80 { searchStart += 1 }
      }
      if end == start, end == text.count { break }
    }
    if wordStart < text.count { body(wordStart..<text.count) }
  }

  /// Whether the expression matches at or after `start`; the bounds are left in `found`.
  private func match(_ text: UnsafeBufferPointer<UInt8>, from start: Int, _ found: OpaquePointer) -> Bool {
    let checked = PCRE2_NO_UTF_CHECK
    var status = pcre2_match_8(code, text.baseAddress, text.count, start, checked, found, nil)
    if status == PCRE2_ERROR_JIT_STACKLIMIT {
      status = pcre2_match_8(code, text.baseAddress, text.count, start, checked | PCRE2_NO_JIT, found, nil)
    }
    return status >= 0
  }
}
