// Items as they are collected from data files: those that can be read, and where the others stand.

import KindredModelFiles

/// The items of a task, and what of its data could not be read.
public struct TaskData: Sendable {
  /// What could be read, in the order of the files.
  public let items: [TaskItem]
  /// Lines that were left out.
  public let badItems: [BadItem]
  /// The files that were read.
  public let files: [String]
}

/// A task whose items come from data files.
public protocol DataTask: EvaluationTask {
  var data: TaskData { get }
}

extension DataTask {
  public var items: [TaskItem] { data.items }
}

/// Reads items one by one.
struct ItemCollector<Item> {
  private(set) var items: [Item] = []
  private(set) var bad: [BadItem] = []
  private(set) var files: [String] = []

  /// More than this is no damage but another format; it also bounds the work on hostile files.
  static var mostBadItems: Int { 1_000 }

  /// Adds the whole text of a file.
  mutating func addText(of file: DataFile) throws where Item == String {
    files.append(file.path)
    try add(file.path, "the text") { try DataFile.text(file.bytes) }
  }

  /// Adds the items of a file that has one on each line.
  ///
  /// - Parameter make: gets the line's number, from 1, and its bytes; `nil` stands for a line without an item.
  mutating func addLines(of file: DataFile, _ make: (Int, UnsafeRawBufferPointer) throws -> Item?) throws {
    files.append(file.path)
    try file.forEachLine { number, line in
      try add(file.path, "line \(number)") {
        guard line.count <= DataFile.lineLimit else {
          throw ItemProblem("expected at most \(DataFile.lineLimit) bytes, found \(line.count)")
        }
        return try make(number, line)
      }
    }
  }

  /// Adds the items of a file that has one JSON object on each line.
  mutating func addJSONLines(of file: DataFile, _ make: (Int, JSONNode) throws -> Item) throws {
    try addLines(of: file) { number, line in
      try make(number, JSONNode(path: file.path, keyPath: "", value: JSONValue(parsing: line, path: file.path)))
    }
  }

  /// Adds the items of a file that is one JSON array.
  mutating func addJSONArray(of file: DataFile, _ make: (Int, JSONNode) throws -> Item) throws {
    files.append(file.path)
    let path = file.path
    let value: JSONValue
    do { value = try file.bytes.withUnsafeBytes { try JSONValue(parsing: $0, path: path) } } catch {
      let line = file.bytes.prefix((error as? ModelFileError)?.offset ?? 0).count { $0 == UInt8(ascii: "\n") } + 1
      return try add(path, "line \(line)") { throw error }
    }
    guard case .array(let elements) = value else {
      throw DataError.unreadable(path: path, problem: "expected a JSON array, found \(value)")
    }
    for (index, element) in elements.enumerated() {
      try add(path, "item \(index + 1)") {
        try make(index + 1, JSONNode(path: path, keyPath: "", value: element))
      }
    }
  }

  /// Adds the items of a headerless CSV file, one each record; `make` gets the number of its first line.
  mutating func addRecords(of file: DataFile, _ make: (Int, [String]) throws -> Item) throws {
    files.append(file.path)
    var reader = CSVReader(bytes: file.bytes)
    while let line = reader.nextRecord() {
      try add(file.path, "line \(line)") { try make(line, reader.record()) }
    }
  }

  /// Adds what `make` returns, or the reason why it throws.
  private mutating func add(_ path: String, _ place: String, _ make: () throws -> Item?) throws {
    let reason: String
    do {
      if let item = try make() { items.append(item) }
      return
    } catch let problem as ItemProblem {
      reason = problem.reason
    } catch let error as ModelFileError {
      let place = error.offset.map { "at byte \($0)" }
      reason = [error.field, place, error.problem].compactMap(\.self).filter { !$0.isEmpty }.joined(separator: ": ")
    }
    bad.append(BadItem(file: path, place: place, reason: reason))
    if bad.count > Self.mostBadItems {
      throw DataError.unreadable(
        path: path, problem: "more than \(Self.mostBadItems) items cannot be read, the first at \(bad[0])")
    }
  }

  /// Refuses what was collected where it must not be used: bad items that are not to be skipped, or no items at all.
  func check(_ path: String, skipsBadItems: Bool) throws(DataError) {
    if !bad.isEmpty, !skipsBadItems { throw .badItems(bad) }
    if items.isEmpty {
      let found = bad.isEmpty ? "none" : "none that can be read, the first that cannot is \(bad[0])"
      throw .unreadable(path: path, problem: "expected at least one item, found \(found)")
    }
  }
}

extension ItemCollector<TaskItem> {
  /// The data of a task, once all files are read.
  func data(_ path: String, skipsBadItems: Bool) throws(DataError) -> TaskData {
    try check(path, skipsBadItems: skipsBadItems)
    return TaskData(items: items, badItems: bad, files: files)
  }

  /// Adds the places that could not be read, and the files, of data that only help.
  mutating func merge(_ other: ItemCollector<some Any>) {
    bad += other.bad
    files += other.files
  }
}

extension TaskItem {
  /// The identity of the item that begins in line `number` of a file, or is the `number`-th of its list.
  static func id(_ file: DataFile, _ number: Int) -> String { "\(file.stem):\(number)" }
}
