// What a long run has found so far, so that one that was interrupted goes on where it stopped: a header that says of
// what, then one line of JSON for each finding, appended and flushed. A line that was cut off by the interruption is
// the last one, without an end, and is not counted; each line has a hash by which other damage is found.

import Foundation

/// What is wrong with a journal.
package struct JournalError: Error, Sendable, CustomStringConvertible {
  package let description: String
}

/// A journal on disk, of one process at a time.
package final class JournalFile<Line: Codable> {
  /// The findings of earlier runs.
  package let found: [Line]
  /// Whether there was no journal of these inputs.
  package let isNew: Bool
  private let path: String
  private let file: FileHandle

  /// Opens the journal at `path`, or starts one.
  ///
  /// - Parameters:
  ///   - header: the first line, which tells apart what findings depend on.
  ///   - replaces: whether a journal with this other first line is started anew instead of refused.
  /// - Throws: `JournalError` for a file of something else, a damaged one, one that cannot be written or that another
  ///   process writes.
  package init(path: String, header: Line, replaces: (Line) -> Bool = { _ in false }) throws(JournalError) {
    self.path = path
    let first = try Self.encoded(header, path: path)
    if !FileManager.default.fileExists(atPath: path) {
      guard FileManager.default.createFile(atPath: path, contents: nil) else { throw Self.unwritable(path) }
    }
    guard let file = FileHandle(forUpdatingAtPath: path) else { throw Self.unwritable(path) }
    self.file = file
    guard flock(file.fileDescriptor, LOCK_EX | LOCK_NB) == 0 else {
      throw JournalError(description: "\(path): expected a journal that nobody writes, found one in use")
    }
    do {
      let content = try file.readToEnd() ?? Data()
      let other = content.prefix { $0 != UInt8(ascii: "\n") }
      // What was interrupted at once has but the beginning of a header.
      guard content.starts(with: first) || first.starts(with: content) || Self.decoded(other).map(replaces) == true
      else {
        throw JournalError(
          description: "\(path): expected the journal of this run, found that of other models, data, options or "
            + "version, or no journal; name another file, or remove it")
      }
      let (lines, length) = try Self.read(content, header: first, path: path)
      found = lines
      isNew = length == 0
      try file.truncate(atOffset: UInt64(length))
      try file.seekToEnd()
      if length == 0 { try file.write(contentsOf: first) }
    } catch let error as JournalError {
      throw error
    } catch {
      throw Self.unwritable(path)
    }
  }

  deinit { try? file.close() }

  /// Adds a finding, for good.
  package func append(_ line: Line) throws(JournalError) {
    let bytes = try Self.encoded(line, path: path)
    do {
      try file.write(contentsOf: bytes)
      try file.synchronize()
    } catch { throw JournalError(description: "\(path): the journal could not be written: \(error)") }
  }

  private static func unwritable(_ path: String) -> JournalError {
    JournalError(description: "\(path): the journal could not be written: \(String(cString: strerror(errno)))")
  }

  private static func encoded(_ line: Line, path: String) throws(JournalError) -> Data {
    let encoder = JSONEncoder()
    encoder.outputFormatting = .sortedKeys
    do {
      return framed(try encoder.encode(line)) + [UInt8(ascii: "\n")]
    } catch { throw JournalError(description: "\(path): expected a finding of finite numbers, found another") }
  }

  /// Between a line's hash and its JSON.
  private static var separator: Data { Data("\",\"line\":".utf8) }

  /// A line's JSON with its hash (``InputHash``).
  private static func framed(_ json: Data) -> Data {
    var hash = InputHash()
    hash.add(String(decoding: json, as: UTF8.self))
    return Data("{\"hash\":\"\(hash.text)".utf8) + separator + json + [UInt8(ascii: "}")]
  }

  /// A line that is as it was written.
  private static func decoded(_ text: Data) -> Line? {
    guard let json = text.range(of: separator).map({ text[$0.upperBound...].dropLast() }), framed(Data(json)) == text
    else { return nil }
    return try? JSONDecoder().decode(Line.self, from: json)
  }

  /// The lines after the header, and the bytes that they take with it; none where it is another.
  private static func read(
    _ content: Data, header: Data, path: String
  ) throws(JournalError) -> (lines: [Line], length: Int) {
    guard content.starts(with: header) else { return ([], 0) }
    var lines: [Line] = []
    var length = header.count
    for text in content.dropFirst(length).split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
      let end = length + text.count + 1
      if end > content.count { break }
      guard let line = decoded(text) else {
        throw JournalError(
          description: "\(path): line \(lines.count + 2): expected a finding, found damaged data; remove the line, or "
            + "the file")
      }
      lines.append(line)
      length = end
    }
    return (lines, length)
  }
}
