// The options by which evaluations name methods, keep what they found, and say where it came from.

import ArgumentParser
import Foundation
import Kindred
import KindredEvaluation
import KindredTransformer

struct MethodOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      """
      What is compared: \(EvaluationMethod.syntax), with commas between (default: unmapped, and with -s also small and \
      paper:0.3, or what --ratio, --recipe or --plan says). R is the share of layers that borrow by the paper's recipe; \
      random draws their small heads; shared and streaming are Shared Attention for the same layers and StreamingLLM in \
      as many bytes.
      """, valueName: "list"))
  var methods: String?

  @Option(help: "Decides the draws of intervals and of random:R.")
  var seed: UInt64 = 0

  @Option(
    help: ArgumentHelp(
      """
      Where answers are kept as they are found: run again, an interrupted evaluation goes on where it stopped (default: \
      beside the output).
      """, valueName: "file"))
  var journal: String?

  @Option(name: .shortAndLong, help: ArgumentHelp("Where the result goes as JSON.", valueName: "file"))
  var output: String?

  @Flag(help: "Print the result as one JSON object.")
  var json = false

  /// Refuses what cannot be run.
  func validate(with models: ModelOptions) throws {
    do {
      for method in try named ?? [] where method.needsSmallModel && models.small == nil {
        throw ValidationError("--methods: \(method.name): expected a small model (-s), found none")
      }
    } catch let error as MethodError { throw ValidationError("--methods: \(error)") }
  }

  /// The methods that `--methods` names.
  private var named: [EvaluationMethod]? {
    get throws(MethodError) {
      guard let methods else { return nil }
      var list: [EvaluationMethod] = []
      for text in methods.split(separator: ",", omittingEmptySubsequences: false) {
        let method = try EvaluationMethod(String(text))
        guard !list.contains(where: { $0.name == method.name }) else {
          throw MethodError(description: "expected each method once, found \(method.name) twice")
        }
        list.append(method)
      }
      return list
    }
  }

  /// The methods to run.
  func list(for models: ModelOptions) throws -> [EvaluationMethod] {
    if let named = try named { return named }
    let plan = try models.planPath.map { EvaluationMethod.plan(path: $0) }
    guard models.small != nil else { return [.unmapped] + [plan].compactMap(\.self) }
    return [.unmapped, .small, plan ?? .paper(ratio: models.ratio ?? defaultRatio)]
  }

  /// What the methods run on.
  func models(_ loaded: LoadedModels<CPUBackend>, options: ModelOptions) throws -> MethodModels<CPUBackend> {
    MethodModels(large: loaded.large, small: loaded.small, recipe: try options.paperRecipe, seed: seed)
  }

  var journalPath: String? { journal ?? output.map { $0 + ".journal" } }

  /// Makes sure that the result can be written, before anything takes time.
  func checkOutput() throws {
    guard let output else { return }
    let folder = URL(fileURLWithPath: output).deletingLastPathComponent().path
    guard FileManager.default.isWritableFile(atPath: folder) else {
      throw FileError(path: output, expected: "a folder that can be written to", found: "none")
    }
  }

  /// Writes and prints a result.
  func report(_ result: EvaluationResult) throws {
    if let output {
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes, .prettyPrinted]
      try encoder.encode(result).write(to: URL(fileURLWithPath: output), options: .atomic)
    }
    if json { return try printJSON(result) }
    printTable(of: result)
  }
}

/// Where a result comes from, and what tells its journal apart.
struct RunProvenance {
  /// SHA-256 of the models' files and the data, by name.
  private let files: [String: String]
  /// Of plans. Which methods a run has does not tell its journal apart.
  private let plans: [String: String]
  private let machine: [String: String]
  private let seed: UInt64

  /// Hashes all files.
  init<B: Backend>(
    _ loaded: LoadedModels<B>, models: ModelOptions, methods: [EvaluationMethod], data: [String], seed: UInt64
  ) throws {
    var files: [String: String] = [:]
    for argument in [models.model, models.small].compactMap(\.self) where !argument.hasPrefix("random:") {
      for (name, path) in Self.weightFiles(try ModelStore().locate(argument)) {
        files[name] = try PartFile.sha256(ofFile: path)
      }
    }
    for path in data { files[Self.name(path)] = try PartFile.sha256(ofFile: path) }
    self.files = files
    plans = try methods.reduce(into: [:]) { plans, method in
      if case .plan(let path) = method { plans[Self.name(path)] = try PartFile.sha256(ofFile: path) }
    }
    self.seed = seed
    let conditions = loaded.conditions
    machine = [
      "processor": Self.processor, "operating_system": ProcessInfo.processInfo.operatingSystemVersionString,
      "instruction_set": conditions.isa, "threads": "\(conditions.threads)",
      "memory_bytes": "\(ProcessInfo.processInfo.physicalMemory)",
    ]
  }

  /// What answers depend on besides items, options and methods.
  var inputs: String {
    let contents = files.values.sorted().joined(separator: " ")
    return "\(kindredVersion) \(machine["instruction_set"] ?? "") \(contents)"
  }

  /// The provenance of a run that ends now.
  func finished() -> Provenance {
    Provenance(
      date: Date().ISO8601Format(), kindredVersion: kindredVersion, commandLine: CommandLine.arguments, seed: seed,
      files: files.merging(plans) { file, _ in file }, machine: machine)
  }

  private static func name(_ path: String) -> String { URL(fileURLWithPath: path).lastPathComponent }

  /// The files of a model's weights and vocabulary, by name; those of a folder with its name before them.
  private static func weightFiles(_ path: String) -> [(name: String, path: String)] {
    var isFolder: ObjCBool = false
    guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder), isFolder.boolValue else {
      return [(name(path), path)]
    }
    let names = (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
    return names.filter { $0.hasSuffix(".safetensors") || $0 == "tokenizer.json" || $0 == "config.json" }
      .map { ("\(name(path))/\($0)", "\(path)/\($0)") }
  }

  /// The processor's name, as Linux gives it.
  private static var processor: String {
    let lines = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8))?.split(separator: "\n") ?? []
    let line = lines.first { $0.hasPrefix("model name") || $0.hasPrefix("CPU implementer") }
    return line?.split(separator: ":").last.map { $0.trimmingCharacters(in: .whitespaces) } ?? "unknown"
  }
}
