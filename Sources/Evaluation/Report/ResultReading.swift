// Reading results back from the files of the command line. Errors name file and place, what was expected and found.

import Foundation
import KindredModelFiles

extension JSONNode {
  /// The members of the object at `key`, each with its place.
  func members(_ key: String) throws(ModelFileError) -> [(key: String, node: JSONNode)] {
    let place = fieldName(key)
    return try object(key).map { member in
      (member.key, JSONNode(path: path, keyPath: "\(place)[\(member.key.quoted())]", value: member.value))
    }
  }

  /// Members with a text, number or truth value, in the order of the file or, where given, of `keys`.
  func texts(_ keys: [String]? = nil) -> [(name: String, value: String)] {
    guard case .object(let object) = value else { return [] }
    return (keys ?? object.map(\.key)).compactMap { key -> (name: String, value: String)? in
      switch object[key] {
      case .string(let text): (key, text)
      case .integer, .number, .bool: object[key].map { (key, $0.description) }
      default: nil
      }
    }
  }

  /// The texts of the array at `key`.
  fileprivate func strings(_ key: String) throws(ModelFileError) -> [String] {
    var strings: [String] = []
    for element in try elements(key) { strings.append(try element.string("")) }
    return strings
  }

  /// An object whose members are read one by one.
  fileprivate func dictionary<Value>(
    _ key: String, _ read: (JSONNode) throws(ModelFileError) -> Value
  ) throws(ModelFileError) -> [String: Value] {
    var dictionary: [String: Value] = [:]
    for (name, node) in try members(key) { dictionary[name] = try read(node) }
    return dictionary
  }
}

extension Estimate {
  init(_ node: JSONNode) throws(ModelFileError) {
    self.init(value: try node.double("value"), low: try node.double("low"), high: try node.double("high"))
  }
}

extension MethodResult {
  init(_ node: JSONNode) throws(ModelFileError) {
    let bytes = 0...1 << 53
    func estimates(_ node: JSONNode) throws(ModelFileError) -> [String: Estimate] {
      try node.dictionary("") { (node) throws(ModelFileError) in try Estimate(node) }
    }
    self.init(
      method: try node.string("method"), scores: try estimates(node.child("scores")),
      differences: try estimates(node.child("differences")),
      groups: try node.dictionary("groups") { (node) throws(ModelFileError) in try estimates(node) },
      kvBytes: try node.integer("kv_bytes", in: bytes),
      unmappedKVBytes: try node.integer("unmapped_kv_bytes", in: bytes), seconds: try node.double("seconds"),
      notes: node.value("notes") == nil ? nil : try node.strings("notes"))
  }
}

extension EvaluationResult {
  init(_ node: JSONNode) throws(ModelFileError) {
    let counts = 0...1 << 40
    var methods: [MethodResult] = []
    for method in try node.elements("methods") { methods.append(try MethodResult(method)) }
    guard !methods.isEmpty else { throw node.error("methods", "expected at least one, found none") }
    self.init(
      task: try node.string("task"), items: try node.integer("items", in: counts),
      skippedItems: try node.integer("skipped_items", in: counts), methods: methods,
      provenance: try Provenance(node.child("provenance")))
  }
}

extension Provenance {
  init(_ node: JSONNode) throws(ModelFileError) {
    self.init(
      date: try node.string("date"), kindredVersion: try node.string("kindred_version"),
      commandLine: try node.strings("command_line"),
      // A seed may have more digits than a signed number of 64 bits.
      seed: UInt64(clamping: (try? node.integer("seed")) ?? 0),
      files: Dictionary(node.child("files").texts().map { ($0.name, $0.value) }) { _, last in last },
      machine: Dictionary(node.child("machine").texts().map { ($0.name, $0.value) }) { _, last in last })
  }
}

extension AnalysisTable {
  /// A matrix has so many columns.
  private static let matrixColumns = 20

  /// Reads a table that `kindred analyze` wrote.
  ///
  /// - Throws: ``ReportError`` for rows of different lengths and damaged quotations.
  init(csvFile path: String) throws {
    var reader = CSVReader(bytes: Array(try Data(contentsOf: URL(fileURLWithPath: path))))
    var records: [[String]] = []
    while let line = reader.nextRecord() {
      do {
        let cells = try reader.record()
        if let columns = records.first, cells.count != columns.count {
          throw ItemProblem("expected \(columns.count) cells, found \(cells.count)")
        }
        records.append(cells)
      } catch let problem as ItemProblem {
        throw ReportError(description: "line \(line): \(problem.reason)")
      }
    }
    guard records.count > 1 else {
      throw ReportError(description: "expected a header line and at least one row, found \(records.count) lines")
    }
    let (columns, rows) = (records[0], records.dropFirst())
    self.init(
      URL(fileURLWithPath: path).deletingPathExtension().lastPathComponent, columns: columns,
      rows: rows.map { $0.map(Cell.init(csv:)) }, isMatrix: columns.count > Self.matrixColumns)
  }

  /// The cells of a column by its name, one for each row; `nil` where there is no such column.
  func column(_ name: String) -> [Cell]? {
    columns.firstIndex(of: name).map { index in rows.map { $0[index] } }
  }

  /// The numbers of a column, `nil` for cells that have none.
  func numbers(_ name: String) -> [Double?]? { column(name)?.map(\.double) }
}

extension AnalysisTable.Cell {
  fileprivate init(csv: String) {
    if csv.isEmpty {
      self = .none
    } else if let integer = Int(csv) {
      self = .integer(integer)
    } else if let number = Double(csv), number.isFinite {
      self = .number(number)
    } else {
      self = .text(csv)
    }
  }

  /// The number in the cell.
  var double: Double? {
    switch self {
    case .integer(let value): Double(value)
    case .number(let value): value
    case .text, .none: nil
    }
  }

  /// The cell for people.
  var display: String {
    switch self {
    case .text(let text): text
    case .integer(let value): "\(value)"
    case .number(let value): NumberText.significant(value, digits: 4)
    case .none: ""
    }
  }
}
