// A cursor over a binary header that names the byte and the field at which the header goes wrong.

/// Reads little-endian values one after the other, never past the end of the file.
struct ByteReader {
  let path: String
  let bytes: UnsafeRawBufferPointer
  /// The next byte to read.
  var offset = 0
  /// What is being read, for errors.
  var field = ""

  var remaining: Int { bytes.count - offset }

  /// An error in the current field, at `offset` or where the next read would begin.
  func error(at offset: Int? = nil, _ problem: String) -> ModelFileError {
    ModelFileError(path: path, offset: offset ?? self.offset, field: field, problem: problem)
  }

  /// The next `count` bytes.
  mutating func take(_ count: Int) throws(ModelFileError) -> UnsafeRawBufferPointer {
    guard count <= remaining else {
      throw error("expected \(count) more bytes, found the end of the file after \(remaining)")
    }
    defer { offset += count }
    return UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count])
  }

  /// The next integer.
  mutating func integer<T: FixedWidthInteger>(_: T.Type = T.self) throws(ModelFileError) -> T {
    T(littleEndian: try take(MemoryLayout<T>.size).loadUnaligned(as: T.self))
  }

  /// The next 64-bit count of things that take at least `minimumBytes` each, all of them still to come.
  mutating func count(minimumBytes: Int) throws(ModelFileError) -> Int {
    let start = offset
    let count = try integer(UInt64.self)
    let limit = remaining / minimumBytes
    guard count <= UInt64(limit) else {
      throw error(at: start, "expected at most \(limit) in what is left of the file, found \(count)")
    }
    return Int(count)
  }

  /// The next string: a 64-bit byte count, then as many bytes.
  mutating func stringBytes() throws(ModelFileError) -> UnsafeRawBufferPointer {
    try take(try count(minimumBytes: 1))
  }

  /// The next string, where it is a name: valid UTF-8 of at most 65,535 bytes.
  mutating func name() throws(ModelFileError) -> String {
    let start = offset
    let bytes = try stringBytes()
    guard bytes.count <= 65_535 else {
      throw error(at: start, "expected a name of at most 65535 bytes, found one of \(bytes.count)")
    }
    guard let name = String(validating: bytes, as: UTF8.self) else {
      throw error(
        at: start, "expected a name in UTF-8, found \(String(decoding: bytes, as: UTF8.self).quoted())")
    }
    return name
  }
}
