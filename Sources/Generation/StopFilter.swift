// Stop strings in streamed text: what might be the beginning of one is held back until it is decided.

/// Passes text through until a stop string appears.
package struct StopFilter {
  private let stops: [[UInt8]]
  private var held: [UInt8] = []
  /// Whether a stop string has appeared; nothing is passed afterwards.
  package private(set) var hasStopped = false

  /// Empty stop strings are ignored.
  package init(_ stops: [String]) { self.stops = stops.map { Array($0.utf8) }.filter { !$0.isEmpty } }

  /// The text that may be shown now. A stop string itself is never shown.
  package mutating func push(_ text: String) -> String {
    guard !hasStopped else { return "" }
    held += text.utf8
    let found = stops.compactMap { stop in Self.firstIndex(of: stop, in: held) }.min()
    if let found {
      hasStopped = true
      defer { held = [] }
      return String(decoding: held[..<found], as: UTF8.self)
    }
    let safe = held.count - longestPossibleStop()
    defer { held.removeFirst(safe) }
    return String(decoding: held[..<safe], as: UTF8.self)
  }

  /// What is still held back, at the end of the text.
  package mutating func flush() -> String {
    defer { held = [] }
    return hasStopped ? "" : String(decoding: held, as: UTF8.self)
  }

  /// Bytes at the end that begin a stop string. Stop strings are whole characters, so what is before them is, too.
  private func longestPossibleStop() -> Int {
    var longest = 0
    for stop in stops {
      for length in stride(from: min(stop.count - 1, held.count), to: longest, by: -1)
      where held.suffix(length).elementsEqual(stop.prefix(length)) {
        longest = length
        break
      }
    }
    return longest
  }

  private static func firstIndex(of stop: [UInt8], in text: [UInt8]) -> Int? {
    guard text.count >= stop.count else { return nil }
    return (0...text.count - stop.count).first { text[$0..<$0 + stop.count].elementsEqual(stop) }
  }
}
