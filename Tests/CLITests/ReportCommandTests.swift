// `kindred report` and `kindred bench --scenario` as users meet them, on tiny random models.

import Foundation
import Testing

@Suite(.enabled(if: FileManager.default.isExecutableFile(atPath: tool.path), "the tool is not built"))
struct ReportCommandTests {
  let folder: URL

  init() throws {
    folder = FileManager.default.temporaryDirectory.appendingPathComponent("kindred-reports-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  }

  func path(_ name: String) -> String { folder.appendingPathComponent(name).path }

  func write(_ text: String, to name: String) throws { try Data(text.utf8).write(to: URL(fileURLWithPath: path(name))) }

  static let tiny = "random:qwen2-0.5b:layers=1"
  static let pair = ["bench", "-m", tiny, "-s", tiny, "--establish-tokens", "20", "--repeat", "1"]

  @Test func scenarioToReport() throws {
    defer { try? FileManager.default.removeItem(at: folder) }
    try write(#"{"sequences": 2, "prompt_tokens": 24, "generate_tokens": 3, "ratio": 1}"#, to: "chat.scenario")
    let bench = Self.pair + ["--scenario", path("chat.scenario")]
    let outcome = try run(bench + ["--json"])
    let json = try #require(outcome.json, "\(outcome.errors)")
    let scenario = try #require(json["scenario"] as? [String: Any])
    #expect(scenario["layers"] as? Int == 1 && scenario["published_layers"] as? Int == 24)
    #expect(scenario["mapped_layer_count"] as? Int == 1 && json["model"] as? String == Self.tiny)
    #expect((json["provenance"] as? [String: Any])?["date"] is String)
    let text = try run(bench)
    #expect(text.code == 0 && text.output.contains("2 sequences of 24 + 3 tokens."))
    #expect(text.output.contains("KV, both models, all 24 layers"))

    try write(String(outcome.output.split(separator: "\n").last ?? ""), to: "chat.json")
    try write("{", to: "broken.json")
    let report = try run(["report", path(""), "-o", path("out"), "--json"])
    #expect(report.code == 0 && report.json?["results"] as? Int == 1)
    #expect(report.errors.count == 1 && report.errors[0].contains("not in the report: broken.json: at byte 1: JSON"))
    let html = try String(contentsOfFile: path("out/report.html"), encoding: .utf8)
    #expect(html.contains("chat: \(Self.tiny) + \(Self.tiny)"))
    #expect(FileManager.default.fileExists(atPath: path("out/report.md")))
  }

  @Test func mistakesGetOneLine() throws {
    defer { try? FileManager.default.removeItem(at: folder) }
    try write(#"{"sequences": 2}"#, to: "short")
    let scenario = Self.pair + ["--scenario"]
    let cases: [([String], Int32, String)] = [
      (["report"], 64, "folder"), (["report", path("")], 1, "expected results of kindred evaluate"),
      (["report", path("none")], 1, "expected a folder of results, found none"),
      (scenario + ["nonsense"], 1, "expected paper-multi-user, paper-long-context or a file, found none"),
      (scenario + [path("short")], 1, "prompt_tokens: expected an integer, found nothing"),
      (scenario + ["paper-multi-user", "--batch", "2"], 64, "--scenario: expected no --prompt-tokens"),
      (scenario + ["paper-multi-user", "--explain"], 64, "found several"),
      (scenario + ["paper-multi-user", "--scale", "0"], 64, "--scale: expected more than 0"),
      (scenario + ["paper-multi-user", "--scale", "0.02"], 1, "a prompt long enough to map them, found 10 tokens"),
      (Self.pair + ["--scale", "0.5"], 64, "--scale: expected a --scenario"),
    ]
    for (arguments, code, text) in cases {
      let outcome = try run(arguments)
      #expect(outcome.code == code, "\(arguments): \(outcome.errors)")
      #expect(outcome.errors.count == 1 && outcome.errors[0].hasPrefix("kindred: "), "\(outcome.errors)")
      #expect(outcome.errors.first?.contains(text) == true, "\(outcome.errors)")
    }
  }
}
