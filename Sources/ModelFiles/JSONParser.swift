// A strict JSON parser over raw bytes. Grammar: RFC 8259.

extension JSONValue {
  /// Parses `bytes`, which come from the file at `path`; offsets in errors count from `base` in that file.
  package init(parsing bytes: UnsafeRawBufferPointer, path: String, base: Int = 0) throws(ModelFileError) {
    var parser = JSONParser(path: path, base: base, bytes: bytes)
    self = try parser.value(depth: 0)
    parser.skipSpace()
    guard parser.offset == bytes.count else { throw parser.expected("the end of the JSON text") }
  }
}

private struct JSONParser {
  let path: String
  let base: Int
  let bytes: UnsafeRawBufferPointer
  var offset = 0

  /// As deep as serde_json goes, which the reference implementation of safetensors uses.
  static let depthLimit = 128
  /// Characters of the longest number; conversion takes more than linear time.
  static let numberLimit = 1_000

  private var next: UInt8? { offset < bytes.count ? bytes[offset] : nil }

  func expected(_ expected: String, at offset: Int? = nil) -> ModelFileError {
    let offset = offset ?? self.offset
    let found =
      offset < bytes.count
      ? String(decoding: bytes[offset..<min(offset + 12, bytes.count)], as: UTF8.self) : nil
    return ModelFileError(
      path: path, offset: base + offset, field: "JSON",
      problem: "expected \(expected), found \(found?.quoted() ?? "the end of the text")")
  }

  mutating func skipSpace() {
    while let byte = next, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { offset += 1 }
  }

  /// Passes over `byte` where it comes next.
  private mutating func skip(_ byte: Unicode.Scalar) -> Bool {
    guard next == UInt8(ascii: byte) else { return false }
    offset += 1
    return true
  }

  mutating func value(depth: Int) throws(ModelFileError) -> JSONValue {
    guard depth <= Self.depthLimit else { throw expected("values nested at most \(Self.depthLimit) deep") }
    skipSpace()
    switch next {
    case UInt8(ascii: "{"): return try object(depth: depth)
    case UInt8(ascii: "["): return try array(depth: depth)
    case UInt8(ascii: "\""): return .string(try string())
    case UInt8(ascii: "t"): return try word("true", .bool(true))
    case UInt8(ascii: "f"): return try word("false", .bool(false))
    case UInt8(ascii: "n"): return try word("null", .null)
    default: return try number()
    }
  }

  private mutating func word(_ word: StaticString, _ value: JSONValue) throws(ModelFileError) -> JSONValue {
    let end = offset + word.utf8CodeUnitCount
    guard end <= bytes.count, word.withUTF8Buffer({ bytes[offset..<end].elementsEqual($0) }) else {
      throw expected("a JSON value")
    }
    offset = end
    return value
  }

  private mutating func object(depth: Int) throws(ModelFileError) -> JSONValue {
    var object = JSONObject()
    offset += 1
    skipSpace()
    if skip("}") { return .object(object) }
    repeat {
      skipSpace()
      guard next == UInt8(ascii: "\"") else { throw expected("a key in quotation marks") }
      let key = try string()
      skipSpace()
      guard skip(":") else { throw expected("a colon after the key") }
      object.append(key: key, try value(depth: depth + 1))
      skipSpace()
    } while skip(",")
    guard skip("}") else { throw expected("a comma or a closing brace") }
    return .object(object)
  }

  private mutating func array(depth: Int) throws(ModelFileError) -> JSONValue {
    var elements: [JSONValue] = []
    offset += 1
    skipSpace()
    if skip("]") { return .array(elements) }
    repeat {
      elements.append(try value(depth: depth + 1))
      skipSpace()
    } while skip(",")
    guard skip("]") else { throw expected("a comma or a closing bracket") }
    return .array(elements)
  }

  private mutating func number() throws(ModelFileError) -> JSONValue {
    let start = offset
    _ = skip("-")
    if !skip("0") { try digits("a JSON value", at: start) }
    var isInteger = true
    if skip(".") {
      isInteger = false
      try digits("a digit", at: offset)
    }
    if skip("e") || skip("E") {
      isInteger = false
      if !skip("+") { _ = skip("-") }
      try digits("a digit", at: offset)
    }
    guard offset - start <= Self.numberLimit else {
      throw expected("a number of at most \(Self.numberLimit) characters", at: start)
    }
    let text = String(decoding: bytes[start..<offset], as: UTF8.self)
    if isInteger, let integer = Int(text) { return .integer(integer) }
    guard let double = Double(text), double.isFinite else {
      throw expected("a number within the range of 64-bit floating point", at: start)
    }
    return .number(double)
  }

  private mutating func digits(_ expectation: String, at start: Int) throws(ModelFileError) {
    let first = offset
    while let byte = next, byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") { offset += 1 }
    guard offset > first else { throw expected(expectation, at: start) }
  }

  /// The string that begins here with a quotation mark.
  private mutating func string() throws(ModelFileError) -> String {
    let start = offset
    offset += 1
    var text = ""
    while true {
      let run = offset
      while let byte = next, byte >= 0x20, byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\") {
        offset += 1
      }
      guard let piece = String(validating: bytes[run..<offset], as: UTF8.self) else {
        throw expected("UTF-8", at: run)
      }
      if text.isEmpty { text = piece } else { text += piece }
      if skip("\"") { return text }
      guard skip("\\") else { throw expected("a closing quotation mark", at: next == nil ? start : offset) }
      text.unicodeScalars.append(try escapedScalar())
    }
  }

  /// The scalar that the escape after a backslash stands for.
  private mutating func escapedScalar() throws(ModelFileError) -> Unicode.Scalar {
    let start = offset - 1
    defer { if offset < bytes.count { offset += 1 } }
    switch next {
    case UInt8(ascii: "\""): return "\""
    case UInt8(ascii: "\\"): return "\\"
    case UInt8(ascii: "/"): return "/"
    case UInt8(ascii: "b"): return "\u{08}"
    case UInt8(ascii: "f"): return "\u{0C}"
    case UInt8(ascii: "n"): return "\n"
    case UInt8(ascii: "r"): return "\r"
    case UInt8(ascii: "t"): return "\t"
    case UInt8(ascii: "u"): return try hexScalar(start: start)
    default: throw expected("an escape that JSON has", at: start)
    }
  }

  /// The scalar of `u` and four hexadecimal digits, or of two such escapes that are a surrogate pair; leaves the last
  /// digit to be passed over.
  private mutating func hexScalar(start: Int) throws(ModelFileError) -> Unicode.Scalar {
    let high = try hexUnit(start: start)
    if let scalar = Unicode.Scalar(high) { return scalar }
    offset += 1
    guard skip("\\"), next == UInt8(ascii: "u") else { throw expected("a surrogate pair", at: start) }
    let low = try hexUnit(start: start)
    guard UTF16.isLeadSurrogate(high), UTF16.isTrailSurrogate(low) else {
      throw expected("a surrogate pair", at: start)
    }
    return UTF16.decode(UTF16.EncodedScalar([high, low]))
  }

  /// The UTF-16 code unit of `u` and four hexadecimal digits; leaves the last digit to be passed over.
  private mutating func hexUnit(start: Int) throws(ModelFileError) -> UInt16 {
    guard offset + 4 < bytes.count,
      bytes[offset + 1...offset + 4].allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }),
      let unit = UInt16(String(decoding: bytes[offset + 1...offset + 4], as: UTF8.self), radix: 16)
    else { throw expected("four hexadecimal digits after \\u", at: start) }
    offset += 4
    return unit
  }
}
