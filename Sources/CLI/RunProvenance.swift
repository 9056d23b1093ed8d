// Where results come from: what was read, by which version, on which machine. Journals are told apart by it.

import Foundation
import Kindred
import KindredEvaluation

/// The contents of what a run reads.
struct RunInputs {
  private struct HashedFile {
    let name: String
    let path: String
    let sha256: String
  }

  /// Each with what it serves as.
  private let parts: [(role: String, files: [HashedFile])]
  /// How results are rounded.
  private let instructionSet: String

  /// Hashes all files. Random weights count by their name.
  ///
  /// - Parameters:
  ///   - model, small: as named on the command line.
  ///   - data: paths of data files.
  init(model: String, small: String?, data: [String], instructionSet: String) throws {
    func files(ofModel argument: String?) throws -> [HashedFile] {
      guard let argument else { return [] }
      if argument.hasPrefix("random:") { return [HashedFile(name: argument, path: argument, sha256: argument)] }
      let path = try ModelStore().locate(argument)
      guard let names = Self.names(inModelFolder: path) else { return try Self.hashed([path]) }
      return try names.map { try Self.hashed("\(path)/\($0)", name: "\(Self.name(path))/\($0)") }
    }
    parts = [
      ("large", try files(ofModel: model)), ("small", try files(ofModel: small)), ("data", try Self.hashed(data)),
    ]
    self.instructionSet = instructionSet
  }

  /// What findings depend on besides options and methods, wherever the files lie: a journal of other inputs is not gone
  /// on with.
  var text: String {
    let contents = parts.map { "\($0.role) \($0.files.map(\.sha256).joined(separator: " "))" }
    return ([kindredVersion, instructionSet] + contents).joined(separator: " ")
  }

  /// SHA-256 by name; by path where names are the same.
  var hashes: [String: String] {
    let files = parts.flatMap(\.files).filter { $0.path != $0.sha256 }
    let byName = Dictionary(grouping: files, by: \.name)
    return files.reduce(into: [:]) { hashes, file in
      let isAlone = Set((byName[file.name] ?? []).map(\.path)).count == 1
      hashes[isAlone ? file.name : file.path] = file.sha256
    }
  }

  static func hashed(plans: [String]) throws -> [String: String] {
    try hashed(plans).reduce(into: [:]) { $0[$1.name] = $1.sha256 }
  }

  private static func hashed(_ paths: [String]) throws -> [HashedFile] {
    try paths.map { try hashed($0, name: name($0)) }
  }

  private static func hashed(_ path: String, name: String) throws -> HashedFile {
    HashedFile(name: name, path: path, sha256: try PartFile.sha256(ofFile: path))
  }

  private static func name(_ path: String) -> String { URL(fileURLWithPath: path).lastPathComponent }

  /// The files of weights, vocabulary and configuration in a model's folder; `nil` where the model is one file.
  private static func names(inModelFolder path: String) -> [String]? {
    var isFolder: ObjCBool = false
    guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder), isFolder.boolValue else { return nil }
    let names = (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
    return names.filter { $0.hasSuffix(".safetensors") || $0 == "tokenizer.json" || $0 == "config.json" }.sorted()
  }
}

/// Where a result comes from.
struct RunProvenance {
  let inputs: RunInputs
  /// SHA-256 of plans. Which methods a run has does not tell its journal apart.
  private let plans: [String: String]
  private let machine: [String: String]
  private let seed: UInt64

  /// Hashes all files.
  init<B: Backend>(
    _ loaded: LoadedModels<B>, models: ModelOptions, methods: [EvaluationMethod], data: [String], seed: UInt64
  ) throws {
    let conditions = loaded.conditions
    inputs = try RunInputs(
      model: models.model, small: models.small, data: data, instructionSet: conditions.isa)
    plans = try RunInputs.hashed(
      plans: methods.compactMap { method in
        if case .plan(let path) = method { path } else { nil }
      })
    self.seed = seed
    machine = [
      "processor": Self.processor, "operating_system": ProcessInfo.processInfo.operatingSystemVersionString,
      "instruction_set": conditions.isa, "threads": "\(conditions.threads)",
      "memory_bytes": "\(ProcessInfo.processInfo.physicalMemory)",
    ]
  }

  /// The provenance of a run that ends now.
  func finished() -> Provenance {
    Provenance(
      date: Date().ISO8601Format(), kindredVersion: kindredVersion, commandLine: CommandLine.arguments, seed: seed,
      files: inputs.hashes.merging(plans) { file, _ in file }, machine: machine)
  }

  /// The processor's name, as Linux gives it.
  private static var processor: String {
    let lines = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8))?.split(separator: "\n") ?? []
    let line = lines.first { $0.hasPrefix("model name") || $0.hasPrefix("CPU implementer") }
    return line?.split(separator: ":").last.map { $0.trimmingCharacters(in: .whitespaces) } ?? "unknown"
  }
}
