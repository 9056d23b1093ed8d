// What several commands need: printing, progress, interruption.

import ArgumentParser
import Foundation
import KindredGeneration

/// Prints one JSON object on one line.
func printJSON(_ value: some Encodable) throws {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
  print(String(decoding: try encoder.encode(value), as: UTF8.self))
}

/// The text of the file at `path`; `-` is standard input. Bytes that are no UTF-8 become U+FFFD.
func readText(_ path: String) throws(FileError) -> String {
  if path == "-" { return String(decoding: FileHandle.standardInput.readDataToEndOfFile(), as: UTF8.self) }
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

/// Writes to standard error, where progress and logs go.
func standardError(_ text: String) {
  FileHandle.standardError.write(Data(text.utf8))
}

/// Writes generated text to standard output at once.
func standardOutput(_ text: String) {
  FileHandle.standardOutput.write(Data(text.utf8))
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
  private let sources: [any DispatchSourceSignal]

  init(_ body: @escaping @Sendable () -> Void) {
    sources = [SIGINT, SIGTERM].map { number in
      signal(number, SIG_IGN)
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
  }
}

extension Double {
  /// The number with `digits` decimals.
  func formatted(digits: Int) -> String { String(format: "%.\(digits)f", self) }
}
