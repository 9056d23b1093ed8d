// What several commands need: printing, progress, interruption.

import ArgumentParser
import Foundation
import Kindred
import KindredGeneration

/// Prints one JSON object on one line.
func printJSON(_ value: some Encodable) throws {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
  print(String(decoding: try encoder.encode(value), as: UTF8.self))
}

/// Prints `rows` with their cells one under the other.
func printColumns(_ rows: [[String]], rightAligned: Set<Int> = []) {
  guard let columnCount = rows.first?.count else { return }
  let widths = (0..<columnCount).map { column in rows.map { $0[column].count }.max() ?? 0 }
  for row in rows {
    let cells = row.enumerated().map { column, cell in
      let padding = String(repeating: " ", count: widths[column] - cell.count)
      if rightAligned.contains(column) { return padding + cell }
      return column == columnCount - 1 ? cell : cell + padding
    }
    print("  " + cells.joined(separator: "  "))
  }
}

/// The text of the file at `path`; `-` is standard input. Bytes that are no UTF-8 become U+FFFD.
func readText(_ path: String) throws(FileError) -> String {
  if path == "-" {
    guard let data = try? FileHandle.standardInput.readToEnd() ?? Data() else {
      throw FileError(path: "standard input", found: "one that cannot be read")
    }
    return String(decoding: data, as: UTF8.self)
  }
  var isFolder: ObjCBool = false
  guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) else {
    throw FileError(path: path, found: "none")
  }
  guard !isFolder.boolValue else { throw FileError(path: path, found: "a folder") }
  guard let data = FileManager.default.contents(atPath: path) else {
    throw FileError(path: path, found: "one that may not be read")
  }
  return String(decoding: data, as: UTF8.self)
}

/// The text of a file that must be one: UTF-8 without zero bytes, and not empty.
func readStrictText(_ path: String) throws -> String {
  let data = Data(try readText(path).utf8)
  if data.isEmpty { throw FileError(path: path, found: "an empty one") }
  if data.contains(0) || String(decoding: data, as: UTF8.self).contains("\u{FFFD}") {
    throw FileError(path: path, found: "bytes that are no UTF-8")
  }
  return String(decoding: data, as: UTF8.self)
}

/// A file that cannot be used.
struct FileError: Error, CustomStringConvertible {
  let path: String
  var expected = "a text file"
  let found: String
  var description: String { "\(path): expected \(expected), found \(found)" }
}

/// Writes to standard error, where progress and logs go; what cannot be written there is lost.
func standardError(_ text: String) {
  try? FileHandle.standardError.write(contentsOf: Data(text.utf8))
}

/// Writes generated text to standard output at once.
func standardOutput(_ text: String) throws {
  try finishOutput()
  do { try FileHandle.standardOutput.write(contentsOf: Data(text.utf8)) } catch { throw OutputError() }
}

/// Makes sure that all that was printed has been written.
func finishOutput() throws {
  guard fflush(nil) == 0 else { throw OutputError() }
}

/// Opens nothing in place of standard streams that are closed: a file opened later would take their place.
func openClosedStreams() {
  for descriptor in STDIN_FILENO...STDERR_FILENO where fcntl(descriptor, F_GETFD) == -1 {
    // The lowest descriptor that is free is this one.
    _ = open("/dev/null", O_RDWR)
  }
}

/// Lets signals end the process also where the parent's thread blocks them, which children inherit: so it is with those of
/// Foundation's `Process` that are not started on the main thread.
func unblockSignals() {
  var signals = sigset_t()
  sigemptyset(&signals)
  for number in [SIGINT, SIGTERM] { sigaddset(&signals, number) }
  pthread_sigmask(SIG_UNBLOCK, &signals, nil)
}

/// Standard output cannot be written.
struct OutputError: Error, CustomStringConvertible {
  /// The system's words for what happened last.
  private let reason = String(cString: strerror(errno))
  var description: String { "standard output: expected to write to it, found: \(reason)" }
}

/// A line on standard error that is rewritten while something goes on; nothing where that is no terminal.
struct StatusLine {
  private let isTerminal = isatty(STDERR_FILENO) == 1

  func show(_ text: @autoclosure () -> String) {
    if isTerminal { standardError("\r\u{1B}[K\(text())") }
  }

  func clear() {
    if isTerminal { standardError("\r\u{1B}[K") }
  }
}

/// The time that is left of a run, on standard error.
final class RemainingTime {
  private let line = StatusLine()
  private let start = ContinuousClock.now
  private var first: Double?

  /// - Parameter share: the work that is done, 0 to 1.
  func show(_ share: Double, _ text: String) {
    // What an earlier run has done took no time of this one.
    let begin = first ?? 0
    if first == nil { first = share }
    let passed = (ContinuousClock.now - start).seconds
    let left = share > begin ? ", \(Int(passed * (1 - share) / (share - begin))) s left" : ""
    line.show("\(Int(100 * share))%\(left): \(text)")
  }

  func clear() { line.clear() }
}

/// Turns Ctrl-C and SIGTERM into calls, for as long as it lives. A second Ctrl-C ends the process at once.
final class InterruptHandler {
  private typealias Handler = @convention(c) (Int32) -> Void
  private let sources: [any DispatchSourceSignal]
  /// What the signals did before.
  private let previous: [(number: Int32, handler: Handler?)]

  init(_ body: @escaping @Sendable () -> Void) {
    let numbers = [SIGINT, SIGTERM]
    previous = numbers.map { ($0, signal($0, SIG_IGN)) }
    sources = numbers.map { number in
      let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
      source.setEventHandler {
        signal(number, SIG_DFL)
        body()
      }
      source.resume()
      return source
    }
  }

  deinit {
    for source in sources { source.cancel() }
    for (number, handler) in previous { signal(number, handler) }
  }
}

/// Makes sure that a file can be written in place, before what it is to hold takes time.
///
/// - Parameters:
///   - inputs: files that are read and must stay.
///   - models: those that are read, as named on the command line.
func checkWritable(_ path: String, inputs: [String], models: [String?]) throws {
  var info = stat()
  let inputs = inputs + models.compactMap { model in model.flatMap { try? ModelStore().locate($0) } }
  if path.isEmpty { throw FileError(path: "--output", expected: "a file to write", found: "an empty name") }
  let url = URL(fileURLWithPath: path).resolvingSymlinksInPath()
  if inputs.contains(where: { URL(fileURLWithPath: $0).resolvingSymlinksInPath() == url }) {
    throw FileError(path: path, expected: "a file to write", found: "one that is read")
  }
  if stat(path, &info) == 0, info.st_mode & S_IFMT != S_IFREG {
    throw FileError(path: path, expected: "a file to write", found: "a folder or device")
  }
  guard FileManager.default.isWritableFile(atPath: url.deletingLastPathComponent().path) else {
    throw FileError(path: path, expected: "a folder that can be written to", found: "none")
  }
}

extension Double {
  /// The number with `digits` decimals.
  func formatted(digits: Int) -> String { String(format: "%.\(digits)f", self) }
}
