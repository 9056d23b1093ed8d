// What a long run has found so far, so that one that was interrupted goes on where it stopped: a header that says of
// what, then one line of JSON for each finding, appended and flushed. A line that was cut off by the interruption is
// the last one, and is not counted.

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
  ///   - replacesOthers: whether a file with another first line is started anew instead of refused.
  /// - Throws: `JournalError` for a file of something else, one that cannot be written or that another process writes.
  package init(path: String, header: Line, replacesOthers: Bool) throws(JournalError) {
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
      guard replacesOthers || content.starts(with: first) || !content.contains(UInt8(ascii: "\n")) else {
        throw JournalError(
          description: "\(path): expected the journal of this run, found that of other models, data, options or "
            + "version; name another file, or remove it")
      }
      let (lines, length) = Self.read(content, header: first)
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
    JournalError(description: "\(path): expected a place for a journal, found none")
  }

  private static func encoded(_ line: Line, path: String) throws(JournalError) -> Data {
    let encoder = JSONEncoder()
    encoder.outputFormatting = .sortedKeys
    do {
      return try encoder.encode(line) + [UInt8(ascii: "\n")]
    } catch { throw JournalError(description: "\(path): expected a finding that JSON can hold: \(error)") }
  }

  /// The lines after the header, and the bytes that they take with it; none where it is another.
  private static func read(_ content: Data, header: Data) -> (lines: [Line], length: Int) {
    guard content.starts(with: header) else { return ([], 0) }
    var lines: [Line] = []
    var length = header.count
    let decoder = JSONDecoder()
    for text in content.dropFirst(length).split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
      let end = length + text.count + 1
      guard end <= content.count, let line = try? decoder.decode(Line.self, from: text) else { break }
      lines.append(line)
      length = end
    }
    return (lines, length)
  }
}
