// `kindred report`: results as one page and one Markdown file.

import ArgumentParser
import Foundation
import KindredEvaluation
import KindredModelFiles

struct ReportCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "report",
    abstract: "Writes one HTML page and one Markdown file from a folder of results.",
    discussion: """
      Reads the JSON results of kindred evaluate, analyze and bench --scenario, and the CSV tables of analyze, in the \
      folder and its folders. Tables have the paper's numbers beside; the figures are in the page, which needs nothing \
      else. Files that are no results are named, with the reason.

      For example:
        kindred bench --scenario paper-multi-user --scale 0.25 -m random:qwen2-72b:layers=4 -s random:qwen2-0.5b \
      --json > results/multi-user.json
        kindred analyze similarity -m large -s small --text book.txt -o results
        kindred report results
      """)

  @Argument(help: ArgumentHelp("The folder of results.", valueName: "folder"))
  var folder: String

  @Option(
    name: .shortAndLong,
    help: ArgumentHelp("Where report.html and report.md go (default: the folder of results).", valueName: "folder"))
  var output: String?

  @Flag(help: "Print the result as one JSON object.")
  var json = false

  func run() throws {
    let report = try Report(folder: folder)
    let output = URL(fileURLWithPath: output ?? folder)
    let page = output.appendingPathComponent("report.html")
    let text = output.appendingPathComponent("report.md")
    do {
      try FileManager.default.createDirectory(at: output, withIntermediateDirectories: true)
      try Data(report.html.utf8).write(to: page, options: .atomic)
      try Data(report.markdown(page: page.lastPathComponent).utf8).write(to: text, options: .atomic)
    } catch {
      throw FileError(path: output.path, expected: "a folder that can be written to", found: "none")
    }
    for problem in report.problems {
      standardError("kindred: not in the report: \(problem.file.onOneLine()): \(problem.reason.onOneLine())\n")
    }
    if json {
      let problems = report.problems.map { ["file": $0.file, "reason": $0.reason] }
      return try printJSON(
        Summary(html: page.path, markdown: text.path, results: report.resultCount, problems: problems))
    }
    print("\(report.resultCount) results in \(page.path) and \(text.path)")
  }

  /// What the command prints as JSON.
  private struct Summary: Encodable {
    var html: String
    var markdown: String
    var results: Int
    var problems: [[String: String]]
  }
}
