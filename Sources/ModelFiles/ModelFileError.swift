// The one error of this module: which file, where in it, which field, and what is wrong there.

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// What is wrong with a model file.
///
/// Its description is one line: `model.gguf: at byte 8: tensor count: expected at most 12, found 99`.
public struct ModelFileError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The file or folder, as the caller named it.
  public let path: String
  /// The byte at which the offending field begins, where the file is binary or JSON.
  public let offset: Int?
  /// The field, metadata key, JSON key path or tensor that is wrong.
  public let field: String?
  /// What was expected and what was found.
  public let problem: String

  public init(path: String, offset: Int? = nil, field: String? = nil, problem: String) {
    self.path = path
    self.offset = offset
    self.field = field
    self.problem = problem
  }

  public var description: String {
    [path, offset.map { "at byte \($0)" }, field, problem].compactMap(\.self).filter { !$0.isEmpty }
      .map { $0.onOneLine() }.joined(separator: ": ")
  }

  /// The error that the system call which just failed left in `errno`.
  static func system(_ path: String) -> ModelFileError {
    ModelFileError(path: path, problem: String(cString: strerror(errno)))
  }
}

extension String {
  /// This text with what would break or forge a line escaped, and cut after `limit` characters.
  ///
  /// Names and values come from files that nobody vouches for, and end up in terminals and logs.
  package func onOneLine(limit: Int = 400) -> String {
    if utf8.count <= limit, utf8.allSatisfy({ (0x20...0x7E).contains($0) }) { return self }
    var line = ""
    for (position, scalar) in unicodeScalars.enumerated() {
      if position == limit { return line + "…" }
      switch scalar.properties.generalCategory {
      case .control, .format, .lineSeparator, .paragraphSeparator, .privateUse, .unassigned:
        line += scalar.escaped(asASCII: true)
      default:
        line.unicodeScalars.append(scalar)
      }
    }
    return line
  }

  /// This text in quotation marks, on one line, cut after `limit` characters.
  package func quoted(limit: Int = 80) -> String { "\"\(onOneLine(limit: limit))\"" }
}
