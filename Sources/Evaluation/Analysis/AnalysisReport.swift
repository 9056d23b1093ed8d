// What an analysis found: figures, tables and pictures, and how they are written to files.

import Foundation

/// A result of an analysis. Encoded as the JSON of the command line.
public struct AnalysisReport: Sendable, Encodable {
  /// Single figures.
  public struct Finding: Sendable, Hashable, Encodable {
    /// What was measured, in a few words.
    public var name: String
    /// In the unit that the name says.
    public var value: Double
    /// The paper's, where it has one.
    public var paper: String?
  }

  /// The analysis, and the name of its JSON file.
  public var name: String
  /// What is told in a line each.
  public var findings: [Finding]
  /// Each is `<name>.csv`.
  public var tables: [AnalysisTable]
  /// Each is `<name>.svg`.
  public var figures: [Figure]

  private enum CodingKeys: String, CodingKey {
    case name = "analysis"
    case findings, tables
  }

  /// Matrices are in their CSV files only.
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(name, forKey: .name)
    try container.encode(findings, forKey: .findings)
    let tables = tables.filter { !$0.isMatrix }.map { ($0.name, $0) }
    try container.encode(Dictionary(uniqueKeysWithValues: tables), forKey: .tables)
  }

  /// Writes tables as CSV, everything as JSON, and draws the figures.
  ///
  /// - Parameter folder: a folder that exists.
  /// - Returns: the names of the files, and why there are no figures, where there are none.
  /// - Throws: where a file cannot be written.
  public func write(to folder: String) throws -> (files: [String], withoutFigures: FigureError?) {
    var files: [String] = []
    func write(_ file: String, _ data: Data) throws {
      try data.write(to: URL(fileURLWithPath: folder).appendingPathComponent(file))
      files.append(file)
    }
    for table in tables { try write("\(table.name).csv", Data(table.csv.utf8)) }
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
    try write("\(name).json", try encoder.encode(self) + Data("\n".utf8))
    do {
      for figure in figures { files.append(try figure.draw(in: folder)) }
    } catch let error as FigureError {
      return (files, error)
    }
    return (files, nil)
  }
}

/// A table of an analysis.
public struct AnalysisTable: Sendable, Hashable, Encodable {
  /// One cell.
  public enum Cell: Sendable, Hashable, Encodable {
    case text(String)
    case integer(Int)
    case number(Double)
    case none

    public func encode(to encoder: any Encoder) throws {
      var container = encoder.singleValueContainer()
      switch self {
      case .text(let text): try container.encode(text)
      case .integer(let value): try container.encode(value)
      // JSON has no infinities.
      case .number(let value) where value.isFinite: try container.encode(value)
      case .number, .none: try container.encodeNil()
      }
    }

    fileprivate var csv: String {
      switch self {
      case .text(let text):
        text.contains { ",\"\n".contains($0) } ? "\"\(text.replacingOccurrences(of: "\"", with: "\"\""))\"" : text
      case .integer(let value): "\(value)"
      case .number(let value): String(format: "%.7g", value)
      case .none: ""
      }
    }
  }

  /// The name of its file, without the suffix.
  public let name: String
  /// The names of the columns.
  public let columns: [String]
  /// `[rows][columns]`.
  public let rows: [[Cell]]
  /// Whether it is one large matrix, which nobody reads as a table.
  public let isMatrix: Bool

  init(_ name: String, columns: [String], rows: [[Cell]], isMatrix: Bool = false) {
    precondition(rows.allSatisfy { $0.count == columns.count }, "\(name): rows of different lengths")
    self.name = name
    self.columns = columns
    self.rows = rows
    self.isMatrix = isMatrix
  }

  /// A header line and one line for each row.
  var csv: String {
    ([columns.map { Cell.text($0).csv }] + rows.map { $0.map(\.csv) }).map { $0.joined(separator: ",") + "\n" }.joined()
  }

  /// Rows as objects.
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.unkeyedContainer()
    for row in rows { try container.encode(Dictionary(zip(columns, row)) { first, _ in first }) }
  }
}
