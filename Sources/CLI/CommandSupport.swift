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
