// What the subcommands of `kindred analyze` have in common: options, loading, and what becomes of a report.

import ArgumentParser
import Foundation
import Kindred
import KindredEvaluation

struct AnalyzeOptions: ParsableArguments {
  @Option(name: [.short, .customLong("model")], help: ArgumentHelp("The large model.", valueName: "model"))
  var model: String

  @Option(
    name: [.short, .customLong("small")],
    help: ArgumentHelp("A small model of the same series.", valueName: "model"))
  var small: String

  @Option(help: ArgumentHelp("The text; - for standard input.", valueName: "file"))
  var text: [String]

  @Option(name: .shortAndLong, help: ArgumentHelp("Where the files go.", valueName: "folder"))
  var output: String

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Tokens on which a map is established.", valueName: "tokens"))
  var establishTokens = 100

  @OptionGroup var engine: EngineOptions

  @Flag(help: "Print the result as one JSON object.")
  var json = false

  func validate() throws {
    var recipe = PaperRecipe(layers: .back(ratio: 0))
    recipe.establishmentTokens = establishTokens
    recipe.minimumTokens = max(1, min(recipe.minimumTokens, establishTokens))
    if let problem = recipe.problem { throw ValidationError("--\(problem)") }
  }

  /// Makes the folder, and makes sure that it can be written to, before anything takes time.
  fileprivate func prepareFolder() throws {
    let folder = URL(fileURLWithPath: output)
    try? FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    let probe = folder.appendingPathComponent(".kindred-\(UUID().uuidString)")
    do {
      try Data().write(to: probe)
      try FileManager.default.removeItem(at: probe)
    } catch {
      throw FileError(path: output, expected: "a folder that can be written to", found: "none")
    }
  }
}

/// The windows of analyses that measure perplexity.
struct AnalyzeWindowOptions: ParsableArguments {
  @Option(parsing: .unconditional, help: "Tokens of a window; those that run mapped are scored.")
  var context = 512

  @Option(parsing: .unconditional, help: "The most windows.")
  var maxWindows = 4

  var windows: ComparisonWindows {
    var windows = ComparisonWindows()
    windows.context = context
    windows.maxWindows = maxWindows
    return windows
  }
}

/// A subcommand: an analysis and its options.
protocol AnalysisCommand: ParsableCommand {
  var options: AnalyzeOptions { get }
  var analysis: any Analysis { get }
  /// Whether more than one text makes sense.
  static var severalTexts: Bool { get }
}

extension AnalysisCommand {
  static var severalTexts: Bool { false }

  func validate() throws { try validateAnalysis() }

  func validateAnalysis() throws {
    if options.text.count > 1, !Self.severalTexts {
      throw ValidationError("--text: expected one, found \(options.text.count)")
    }
    if let problem = analysis.problem { throw ValidationError("--\(problem)") }
  }

  func run() throws {
    let texts = try options.text.map { try readStrictText($0) }
    try options.prepareFolder()
    let backend = try options.engine.backend()
    let (large, lender) = try options.engine.load(options.model, on: backend, small: options.small, on: backend)
    guard let small = lender else { preconditionFailure("a small model was named") }
    try large.requireVocabulary(of: small)
    guard let tokenizer = large.tokenizer else { throw PromptError.noTokenizer(model: large.name) }
    var pair = AnalysedPair(large: large.decoder, small: small.decoder, kvType: options.engine.kvType)
    pair.establishmentTokens = options.establishTokens
    let tokens = try texts.map { try tokenizer.promptTokens($0) }
    let start = ContinuousClock.now
    let line = RemainingTime()
    let report = try analysis.run(pair, texts: tokens) { share, step in line.show(share, step) }
    line.clear()
    let (files, withoutFigures) = try report.write(to: options.output)
    if let withoutFigures { standardError("kindred: no figures: \(withoutFigures)\n") }
    let seconds = (ContinuousClock.now - start).seconds
    if options.json {
      let summary = AnalysisSummary(
        model: large.shortName, smallModel: small.shortName, folder: options.output, files: files, seconds: seconds)
      return try printJSON(Joined(report, summary))
    }
    report.printTables(title: "\(small.shortName) lends to \(large.shortName)")
    print("\n\(files.joined(separator: ", ")) in \(options.output), \(Int(seconds)) s")
  }
}

/// What stands beside a report in JSON.
private struct AnalysisSummary: Encodable {
  let model: String
  let smallModel: String
  let folder: String
  let files: [String]
  let seconds: Double

  private enum CodingKeys: String, CodingKey {
    case model, folder, files, seconds
    case smallModel = "small_model"
  }
}

extension AnalysisReport {
  /// Rows of a table that are printed.
  private static let mostRows = 60

  /// Prints figures and tables, for people.
  fileprivate func printTables(title: String) {
    print("\(name): \(title)\n")
    let rows = findings.map { [$0.name, $0.value.formatted(digits: 4), $0.paper ?? ""] }
    printColumns([["", "here", "paper"]] + rows, rightAligned: [1])
    for table in tables where !table.isMatrix {
      print("\n\(table.name)")
      let header = table.columns.map { $0.replacingOccurrences(of: "_", with: " ") }
      let cells = table.rows.prefix(Self.mostRows).map { $0.map(\.shown) }
      printColumns([header] + cells, rightAligned: Set(table.columns.indices))
      if table.rows.count > Self.mostRows { print("  … \(table.rows.count - Self.mostRows) more in \(table.name).csv") }
    }
  }
}

extension AnalysisTable.Cell {
  fileprivate var shown: String {
    switch self {
    case .text(let text): text
    case .integer(let value): "\(value)"
    case .number(let value): value.formatted(digits: 4)
    case .none: ""
    }
  }
}
