// The results in a folder: which files there are, what each is, and what is wrong with those that are none.
//
//   {"task": …, "methods": […]}   of `kindred evaluate`
//   {"analysis": …}               of `kindred analyze`, whose tables are in CSV files beside it
//   {"scenario": {…}}             of `kindred bench --scenario`
//   {"machine": {name: text}}     where and when results were made

import Foundation
import KindredModelFiles

/// What a folder of results holds.
struct ResultFolder {
  /// A result and the file that it comes from, relative to the folder.
  struct Found<Result> {
    var file: String
    var result: Result
  }

  /// A scenario's result and on what it ran.
  struct ScenarioRun {
    var result: ScenarioResult
    /// Model, small model, threads and so on, as text.
    var conditions: [(name: String, value: String)]
    var provenance: Provenance?
  }

  /// An analysis of a pair.
  struct AnalysisRun {
    /// The folder of its files.
    var folder: String
    var name: String
    /// Large and small.
    var models: (large: String, small: String)?
    var findings: [AnalysisReport.Finding] = []
    var tables: [AnalysisTable] = []

    func table(_ name: String) -> AnalysisTable? { tables.first { $0.name == name } }
  }

  private(set) var evaluations: [Found<EvaluationResult>] = []
  private(set) var scenarios: [Found<ScenarioRun>] = []
  private(set) var analyses: [AnalysisRun] = []
  private(set) var machines: [Found<[(name: String, value: String)]>] = []
  /// Files that could not be used, and why.
  private(set) var problems: [(file: String, reason: String)] = []

  /// As many files are read at most.
  private static let mostFiles = 10_000
  private static let mostBytes = 64 << 20
  private static let kinds = "results of kindred evaluate, analyze or bench --scenario"

  /// Reads all JSON and CSV files of a folder and its folders.
  ///
  /// - Throws: ``ReportError`` where the folder cannot be read or has no result.
  init(path: String) throws(ReportError) {
    for file in try Self.files(in: path) {
      let full = URL(fileURLWithPath: path).appendingPathComponent(file).path
      do {
        let size = try URL(fileURLWithPath: full).resourceValues(forKeys: [.fileSizeKey]).fileSize ?? 0
        guard (1...Self.mostBytes).contains(size) else {
          throw ReportError(description: "expected 1 to \(Self.mostBytes) bytes, found \(size)")
        }
        if file.hasSuffix(".csv") {
          try add(table: AnalysisTable(csvFile: full), of: file)
        } else {
          try add(JSONNode(path: full), of: file)
        }
      } catch {
        // The file is named already.
        problems.append((file, "\(error)".replacing("\(full): ", with: "")))
      }
    }
    analyses.sort { ($0.folder, $0.name) < ($1.folder, $1.name) }
    guard !evaluations.isEmpty || !scenarios.isEmpty || !analyses.isEmpty else {
      let reasons = problems.prefix(5).map { "; \($0.file): \($0.reason)" }.joined()
      throw ReportError(description: "\(path): expected \(Self.kinds), found none\(reasons)")
    }
  }

  /// JSON and CSV files that are not hidden, in order.
  private static func files(in path: String) throws(ReportError) -> [String] {
    var isFolder: ObjCBool = false
    guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder), isFolder.boolValue,
      let all = FileManager.default.enumerator(atPath: path)
    else { throw ReportError(description: "\(path): expected a folder of results, found none") }
    var files: [String] = []
    for case let file as String in all where file.hasSuffix(".json") || file.hasSuffix(".csv") {
      guard !file.split(separator: "/").contains(where: { $0.hasPrefix(".") }) else { continue }
      files.append(file)
      guard files.count <= mostFiles else {
        throw ReportError(description: "\(path): expected at most \(mostFiles) JSON and CSV files, found more")
      }
    }
    return files.sorted()
  }

  private mutating func add(_ node: JSONNode, of file: String) throws {
    if node.value("task") != nil, node.value("methods") != nil {
      evaluations.append(Found(file: file, result: try EvaluationResult(node)))
    } else if node.value("scenario") != nil {
      let conditions = node.texts(["model", "small_model", "plan", "kv_type", "small_kv_type", "threads", "isa"])
      let run = ScenarioRun(
        result: try ScenarioResult(node.child("scenario")),
        conditions: conditions.map { ($0.name, Self.withoutFolders($0.value)) },
        provenance: node.value("provenance") == nil ? nil : try Provenance(node.child("provenance")))
      scenarios.append(Found(file: file, result: run))
    } else if node.value("analysis") != nil {
      try add(analysis: node, of: file)
    } else if node.value("machine") != nil {
      machines.append(Found(file: file, result: node.child("machine").texts()))
    } else {
      let kind = node.value("format")?.string.map { ", but one of format \($0.quoted())" } ?? ""
      throw ReportError(description: "expected \(Self.kinds), found none\(kind)")
    }
  }

  private mutating func add(analysis node: JSONNode, of file: String) throws {
    let name = try node.string("analysis")
    let findings = try node.elements("findings").map { finding in
      AnalysisReport.Finding(
        name: try finding.string("name"), value: try finding.double("value"),
        paper: try finding.stringIfPresent("paper"))
    }
    let (large, small) = (try node.stringIfPresent("model"), try node.stringIfPresent("small_model"))
    let index = analysisIndex(folder: Self.folder(of: file), name: name)
    analyses[index].findings = findings
    if let large, let small { analyses[index].models = (Self.withoutFolders(large), Self.withoutFolders(small)) }
  }

  /// Tables belong to the analysis by whose name theirs begins.
  private mutating func add(table: AnalysisTable, of file: String) {
    let name = table.name.split(separator: "-").first.map(String.init) ?? table.name
    analyses[analysisIndex(folder: Self.folder(of: file), name: name)].tables.append(table)
  }

  private mutating func analysisIndex(folder: String, name: String) -> Int {
    if let index = analyses.firstIndex(where: { $0.folder == folder && $0.name == name }) { return index }
    analyses.append(AnalysisRun(folder: folder, name: name))
    return analyses.count - 1
  }

  /// The last part of a path, and all of what is none: where models lie on a machine is of no use to others.
  private static func withoutFolders(_ name: String) -> String {
    name.hasPrefix("/") ? URL(fileURLWithPath: name).lastPathComponent : name
  }

  private static func folder(of file: String) -> String {
    file.split(separator: "/").dropLast().joined(separator: "/")
  }
}

/// Why there is no report, or why a file is not in it.
public struct ReportError: Error, Sendable, CustomStringConvertible {
  public let description: String
}
