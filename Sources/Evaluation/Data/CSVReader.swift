// Comma-separated values. Format: RFC 4180; lines may also end in a line feed alone, and a quotation mark inside a field
// that does not begin with one stands for itself, as in Python's `csv`.

import KindredModelFiles

/// Reads records one after the other; one that is damaged costs no other.
struct CSVReader {
  /// Bytes of the longest record: a quotation mark that is never closed ends there.
  static let recordLimit = 1 << 20

  private let bytes: [UInt8]
  /// Where the next record begins, and in which line, from 1.
  private var start = 0
  private var line = 1
  private var current: Result<[[UInt8]], ItemProblem> = .success([])

  init(bytes: [UInt8]) { self.bytes = bytes }

  /// The fields of the record that `nextRecord` moved to.
  func record() throws -> [String] { try current.get().map { try DataFile.text($0) } }

  /// Moves to the next record that is not an empty line, and returns the line in which it begins; `nil` at the end.
  mutating func nextRecord() -> Int? {
    while let end = lineBreak(at: start) {
      start = end
      line += 1
    }
    guard start < bytes.count else { return nil }
    let first = line
    do {
      current = .success(try readRecord())
    } catch {
      current = .failure(error)
      skipLine(from: start)
    }
    return first
  }

  /// Reads fields from `start` on and moves behind the record; leaves `start` where it was if that is not possible.
  private mutating func readRecord() throws(ItemProblem) -> [[UInt8]] {
    var fields: [[UInt8]] = []
    var position = start
    while true {
      let isQuoted = position < bytes.count && bytes[position] == UInt8(ascii: "\"")
      let (field, end) = try isQuoted ? quotedField(at: position + 1) : plainField(at: position)
      guard end - start <= Self.recordLimit else { throw Self.tooLong }
      fields.append(field)
      position = end
      guard position < bytes.count, bytes[position] == UInt8(ascii: ",") else { break }
      position += 1
    }
    let end = lineBreak(at: position) ?? position
    line += bytes[start..<end].count { $0 == UInt8(ascii: "\n") }
    start = end
    return fields
  }

  private static var tooLong: ItemProblem {
    ItemProblem("expected at most \(recordLimit) bytes and an end to each quotation, found more")
  }

  /// The field that begins here without a quotation mark, and where it ends: before a comma, a line break or the end.
  private func plainField(at begin: Int) -> (field: [UInt8], end: Int) {
    var end = begin
    while end < bytes.count, bytes[end] != UInt8(ascii: ","), lineBreak(at: end) == nil { end += 1 }
    return (Array(bytes[begin..<end]), end)
  }

  /// The field whose quotation begins here, and where it ends.
  private func quotedField(at begin: Int) throws(ItemProblem) -> (field: [UInt8], end: Int) {
    var field: [UInt8] = []
    var end = begin
    while true {
      guard end < bytes.count else { throw ItemProblem("expected a closing quotation mark, found the end of the file") }
      guard end - start <= Self.recordLimit else { throw Self.tooLong }
      if bytes[end] == UInt8(ascii: "\"") {
        end += 1
        guard end < bytes.count, bytes[end] == UInt8(ascii: "\"") else { break }
      }
      field.append(bytes[end])
      end += 1
    }
    guard end == bytes.count || bytes[end] == UInt8(ascii: ",") || lineBreak(at: end) != nil else {
      let text = String(decoding: field.prefix(20), as: UTF8.self).quoted()
      throw ItemProblem("expected a comma after the closing quotation mark of field \(text)")
    }
    return (field, end)
  }

  /// Where the line break that stands here ends, if one does.
  private func lineBreak(at position: Int) -> Int? {
    guard position < bytes.count else { return nil }
    if bytes[position] == UInt8(ascii: "\n") { return position + 1 }
    let next = position + 1
    let isPair = bytes[position] == UInt8(ascii: "\r") && next < bytes.count && bytes[next] == UInt8(ascii: "\n")
    return isPair ? next + 1 : nil
  }

  private mutating func skipLine(from position: Int) {
    start = bytes[position...].firstIndex(of: UInt8(ascii: "\n")).map { $0 + 1 } ?? bytes.count
    line += 1
  }
}
