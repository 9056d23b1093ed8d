// `kindred analyze` as users meet it, on the tiny pair of `AttentionMappingTests` with a tokenizer of single
// characters.

import Foundation
import Testing

@Suite(.enabled(if: FileManager.default.isExecutableFile(atPath: tool.path), "the tool is not built"))
struct AnalyzeCommandTests {
  let folder: URL

  init() throws {
    folder = FileManager.default.temporaryDirectory.appendingPathComponent("kindred-analyze-\(UUID().uuidString)")
    let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .appendingPathComponent("AttentionMappingTests/Fixtures/pair")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    for (name, first) in [("large", "!"), ("small", "!"), ("other", "?")] {
      let source = fixtures.appendingPathComponent(name == "other" ? "small" : name)
      let copy = folder.appendingPathComponent(name)
      try FileManager.default.copyItem(at: source, to: copy)
      try Data(Self.tokenizer(first: first).utf8).write(to: copy.appendingPathComponent("tokenizer.json"))
    }
    let text = (0..<40).map { "line \($0 * 37 % 91): the quick brown fox\n" }.joined()
    for (name, text) in [("text", text), ("second", String(text.reversed())), ("short", "ten chars."), ("empty", "")] {
      try Data(text.utf8).write(to: folder.appendingPathComponent(name))
    }
  }

  /// A vocabulary of 95 single characters; `first` is the first.
  static func tokenizer(first: String) -> String {
    let others = (33...126).compactMap { UnicodeScalar($0).map(String.init) }.filter { $0 != first }
    let entries = ([first] + others + ["\u{120}", "\u{10A}"]).enumerated().map { id, text in
      let escaped = text == "\"" || text == "\\" ? "\\" + text : text
      return "\"\(escaped)\": \(id)"
    }
    return """
      {"model": {"type": "BPE", "vocab": {\(entries.joined(separator: ", "))}, "merges": []},
       "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}}
      """
  }

  func path(_ name: String) -> String { folder.appendingPathComponent(name).path }

  func arguments(_ subcommand: String, small: String = "small", text: String = "text") -> [String] {
    [
      "analyze", subcommand, "-m", path("large"), "-s", path(small), "--text", path(text), "-o", path("out"),
      "--establish-tokens", "20",
    ]
  }

  static let windows = ["--context", "40", "--max-windows", "1"]

  @Test(arguments: [
    ("similarity", [], ["similarity-heads", "similarity-layers", "similarity-best"]),
    ("layers", windows + ["--blocks", "3"], ["layers"]),
    ("layers", windows + ["--unit", "group"], ["layers"]),
    ("strategies", windows + ["--strategy", "back", "--ratio", "0.5"], ["strategies"]),
    ("metrics", windows, ["metrics"]),
    ("consistency", ["--tokens", "30", "--every", "10"], ["consistency-steps", "consistency-layers"]),
    ("usage", ["--windows", "2"], ["usage"]),
  ])
  func filesAreWritten(subcommand: String, options: [String], tables: [String]) throws {
    defer { try? FileManager.default.removeItem(at: folder) }
    let text = try run(arguments(subcommand) + options)
    #expect(text.code == 0, "\(text.errors)")
    #expect(text.output.hasPrefix("\(subcommand): ") && text.output.contains("small lends to "))
    let outcome = try run(arguments(subcommand) + options + ["--json"])
    let json = try #require(outcome.json)
    #expect(json["analysis"] as? String == subcommand && !(json["findings"] as? [Any] ?? []).isEmpty)
    #expect(json["model"] as? String == "large" && json["small_model"] as? String == "small")
    let files = try #require(json["files"] as? [String])
    #expect(Set(files).isSuperset(of: tables.map { "\($0).csv" } + ["\(subcommand).json"]))
    #expect(Set(try FileManager.default.contentsOfDirectory(atPath: path("out"))) == Set(files))
    // Without gnuplot a line says so.
    let lacksGnuplot = outcome.errors.contains { $0.contains("no figures") && $0.contains("gnuplot on the path") }
    #expect(files.contains { $0.hasSuffix(".svg") } != lacksGnuplot)
  }

  @Test func severalTextsAreCorrelated() throws {
    defer { try? FileManager.default.removeItem(at: folder) }
    let outcome = try run(arguments("layers") + Self.windows + ["--blocks", "3", "--text", path("second"), "--json"])
    let findings = try #require(outcome.json?["findings"] as? [[String: Any]])
    #expect(findings.last?["paper"] as? String == "0.741 (MMLU and 1/log-ppl)")
  }

  @Test func mistakesGetOneLine() throws {
    defer { try? FileManager.default.removeItem(at: folder) }
    let cases: [([String], Int32, String)] = [
      (["analyze", "nonsense"], 64, "nonsense"),
      (["analyze", "usage", "-m", path("large"), "--text", path("text"), "-o", path("out")], 64, "--small"),
      (arguments("usage", text: "empty"), 1, "an empty one"),
      (arguments("usage", text: "missing"), 1, "expected a text file, found none"),
      (arguments("usage", text: "short"), 1, "expected at least 160 tokens, found 10"),
      (arguments("usage", small: "other"), 1, "expected the same vocabulary"),
      (arguments("usage", small: "nowhere"), 1, "nowhere"),
      (arguments("usage") + ["-o", "/proc/no/such"], 1, "/proc/no/such: expected a folder that can be written to"),
      (arguments("usage") + ["-o", path("text")], 1, "expected a folder that can be written to"),
      (arguments("usage") + ["--windows", "0"], 64, "--windows: expected 1 to"),
      (arguments("usage") + ["--text", path("second")], 64, "--text: expected one, found 2"),
      (arguments("usage") + ["--establish-tokens", "0"], 64, "--establish-tokens: expected 1 to 1024"),
      (arguments("layers") + ["--blocks", "0"], 64, "--blocks: expected at least 1"),
      (arguments("layers") + ["--blocks", "3", "--unit", "layer"], 64, "found both"),
      (arguments("layers"), 1, "blocks: expected at most the model's 3 layers, found 10"),
      (arguments("layers") + ["--blocks", "3", "--context", "20"], 1, "context: expected more than the 20 tokens"),
      (arguments("strategies") + ["--ratio", "-1"], 64, "--ratio: expected numbers from 0 to 1, found -1.0"),
      (arguments("metrics") + ["--max-windows", "0"], 64, "--max-windows: expected at least 1"),
      (arguments("consistency") + ["--tokens", "0"], 64, "--tokens: expected 1 to"),
      (arguments("consistency"), 1, "expected at most 256 positions"),
    ]
    for (arguments, code, text) in cases {
      let outcome = try run(arguments)
      #expect(outcome.code == code, "\(arguments): \(outcome.errors)")
      #expect(outcome.errors.count == 1 && outcome.errors[0].hasPrefix("kindred: "), "\(outcome.errors)")
      #expect(outcome.errors.first?.contains(text) == true, "\(outcome.errors)")
      #expect(outcome.output.isEmpty)
    }
  }

  @Test(arguments: ["similarity", "layers", "strategies", "metrics", "consistency", "usage"])
  func helpTeaches(subcommand: String) throws {
    defer { try? FileManager.default.removeItem(at: folder) }
    let outcome = try run(["analyze", subcommand, "--help"])
    #expect(outcome.code == 0 && outcome.output.contains("paper") && outcome.output.contains("USAGE: kindred analyze"))
  }
}
