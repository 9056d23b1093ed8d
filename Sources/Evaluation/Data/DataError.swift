// What is wrong with data: a file as a whole, or places in it.

import KindredModelFiles

/// A place in a data file that could not be read.
public struct BadItem: Error, Sendable, Hashable, CustomStringConvertible {
  /// The file, as it was named.
  public let file: String
  /// `line 3`, or `item 3` of a file that is one list.
  public let place: String
  /// What was expected there and what was found.
  public let reason: String

  public var description: String {
    [file, place, reason].map { $0.onOneLine() }.joined(separator: ": ")
  }
}

/// Data that cannot be evaluated on.
public enum DataError: Error, Sendable, Hashable, CustomStringConvertible {
  /// A file or folder that cannot be read.
  case unreadable(path: String, problem: String)
  /// Places that cannot be read; not empty.
  case badItems([BadItem])

  /// The most places listed in the description.
  private static let mostListed = 5

  public var description: String {
    switch self {
    case .unreadable(let path, let problem): return "\(path.onOneLine()): \(problem.onOneLine())"
    case .badItems(let bad):
      let rest = bad.count - Self.mostListed
      let listed = bad.prefix(Self.mostListed).map(\.description) + (rest > 0 ? ["and \(rest) more"] : [])
      let count = bad.count == 1 ? "1 item" : "\(bad.count) items"
      return "\(count) of the data cannot be read (--skip-bad-items leaves such out): "
        + listed.joined(separator: "; ")
    }
  }
}

/// Why an item cannot be read, where its place is known to the caller.
struct ItemProblem: Error {
  let reason: String

  init(_ reason: String) { self.reason = reason }
}
