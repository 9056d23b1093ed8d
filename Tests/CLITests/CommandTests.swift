// The built `kindred` as users meet it: exit codes, one line for each error, JSON as the last line.

import Foundation
import Testing

/// What a run of the tool left.
struct Outcome {
  let code: Int32
  let output: String
  let errors: [String]

  /// The last line of standard output as JSON.
  var json: [String: Any]? {
    let last = output.split(separator: "\n").last ?? ""
    return try? JSONSerialization.jsonObject(with: Data(last.utf8)) as? [String: Any]
  }
}

/// The tool, which stands beside the test bundle.
let tool = URL(fileURLWithPath: ProcessInfo.processInfo.arguments[0]).deletingLastPathComponent()
  .appendingPathComponent("kindred")

func run(_ arguments: [String], environment: [String: String] = [:]) throws -> Outcome {
  let process = Process()
  process.executableURL = tool
  process.arguments = arguments
  process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
  process.standardInput = FileHandle.nullDevice
  let output = Pipe()
  let errors = Pipe()
  process.standardOutput = output
  process.standardError = errors
  try process.run()
  let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
  let errorText = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
  process.waitUntilExit()
  return Outcome(
    code: process.terminationStatus, output: text,
    errors: errorText.split(separator: "\n", omittingEmptySubsequences: false).filter { !$0.isEmpty }.map(String.init))
}

@Suite(.enabled(if: FileManager.default.isExecutableFile(atPath: tool.path), "the tool is not built"), .serialized)
struct CommandTests {
  static let folder: String = {
    let path = NSTemporaryDirectory() + "kindred-commands-\(ProcessInfo.processInfo.processIdentifier)"
    try? FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    try? Data("no model at all\n".utf8).write(to: URL(fileURLWithPath: path + "/text.gguf"))
    try? Data().write(to: URL(fileURLWithPath: path + "/empty.txt"))
    try? Data([0x89, 0x50, 0, 0xff]).write(to: URL(fileURLWithPath: path + "/binary.txt"))
    for (name, layers) in [("plan", 1), ("other", 2)] {
      try? Data(planText(layers: layers).utf8).write(to: URL(fileURLWithPath: path + "/\(name).json"))
    }
    return path
  }()

  static let tiny = "random:qwen2-0.5b:layers=1"
  static let huge = "\(Int.max)"

  static func calibrate(_ text: String, _ options: String...) -> [String] {
    ["calibrate", "-m", tiny, "-s", tiny, "--text", text, "-o", folder + "/calibrated.json"] + options
  }

  /// A plan for models of the tiny one's heads: the second KV head keeps 4 sinks and 16 positions.
  static func planText(layers: Int) -> String {
    let layer = #"[{"near": "all"}, {"near": {"positions": 16, "sinks": 4}, "far": "nothing"}]"#
    return """
      {"format": "kindred-plan", "version": 1, "notes": {"made by": "hand"},
       "large": {"name": "tiny", "layers": \(layers), "query_heads": 14, "kv_heads": 2, "head_dimension": 64},
       "units": [\(Array(repeating: layer, count: layers).joined(separator: ", "))]}
      """
  }

  @Test(arguments: [
    (["nonsense"], 64, "nonsense"),
    (["generate", "-p", "x"], 64, "--model"),
    (["generate", "-m", tiny], 64, "--prompt"),
    (["generate", "-m", tiny, "-p", "x", "--ratio", "0.5"], 64, "small model"),
    (["generate", "-m", tiny, "-s", tiny, "-p", "x", "--ratio", "-0.5"], 64, "found -0.5"),
    (["generate", "-m", tiny, "-s", tiny, "-p", "x", "--map-layers", "3-"], 64, "found \"3-\""),
    (["bench", "-m", tiny, "--similarity", "pearson"], 64, "--similarity: expected a small model"),
    (["bench", "-m", tiny, "-s", tiny, "--similarity", "manhattan"], 64, "minkowski-1"),
    (["bench", "-m", tiny, "-s", tiny, "--strategy", "middle"], 64, "most-similar"),
    (["bench", "-m", tiny, "-s", tiny, "--strategy", "front", "--map-layers", "0"], 64, "found both"),
    (["bench", "-m", tiny, "-s", tiny, "--remap-every", "0"], 64, "--remap-every: expected at least 1"),
    (["bench", "-m", tiny, "-s", tiny, "--remap-every", "-2"], 64, "found -2"),
    (["bench", "-m", tiny, "-s", tiny, "--establish-tokens", "0"], 64, "--establish-tokens: expected 1 to 1024"),
    (["bench", "-m", tiny, "-s", tiny, "--minimum-tokens", "200"], 64, "--minimum-tokens: expected 1 to the 100"),
    (["generate", "-m", tiny, "-p", "x", "--top-p", "0"], 64, "top-p"),
    (["generate", "-m", tiny, "-p", "x", "-n", "0"], 64, "--max-tokens"),
    (["generate", "-m", tiny, "-p", ""], 1, "empty prompt"),
    (["generate", "-m", tiny, "-p", "x"], 1, "random weights"),
    (["generate", "-m", tiny, "-s", tiny, "-p", "x", "--map-layers", "7"], 1, "found 7"),
    (["generate", "-m", "random:gpt-5", "-p", "x"], 1, "qwen2-72b"),
    (["generate", "-m", "/no/such/model.gguf", "-p", "x"], 1, "/no/such/model.gguf"),
    (["generate", "-m", folder, "-p", "x"], 1, "config.json"),
    (["generate", "-m", folder + "/text.gguf", "-p", "x"], 1, "at byte 0"),
    (["generate", "-m", tiny, "-p", "x", "--plan", folder + "/plan.json", "--ratio", "0.5"], 64, "small model"),
    (["bench", "-m", tiny, "-s", tiny, "--plan", folder + "/plan.json", "--ratio", "0.5"], 64, "found both"),
    (["bench", "-m", tiny, "--plan", "/no/such/plan.json"], 1, "/no/such/plan.json"),
    (["bench", "-m", tiny, "--plan", folder + "/text.gguf"], 1, "JSON"),
    (["bench", "-m", tiny, "--plan", folder + "/other.json"], 1, "expected 2 layers, found 1"),
    (["inspect", folder + "/text.gguf"], 1, "GGUF"),
    (["inspect", folder + "/text.gguf", "--figure", "x.svg"], 64, "plan's .json file"),
    (["bench", "-m", tiny, "--prompt-tokens", "200000", "--repeat", "1"], 1, "131072"),
    (["bench", "-m", tiny, "--repeat", "0"], 64, "repeat"),
    (["bench", "-m", tiny, "-s", tiny, "--small-kv-type", "q5"], 64, "--small-kv-type"),
    (["bench", "-m", tiny, "--small-kv-type", "q8_0"], 64, "small model"),
    (["bench", "-m", tiny, "--depth", "0"], 64, "depth"),
    (["bench", "-m", tiny, "--explain"], 64, "small model"),
    (["bench", "-m", tiny, "-s", tiny, "--explain", "--profile"], 64, "found both"),
    (["bench", "-m", tiny, "-s", tiny, "--explain", "--ratio", "0", "--prompt-tokens", "30"], 1, "no map"),
    (["evaluate", "perplexity", "-m", tiny, "--data", "/no/such/text"], 1, "/no/such/text"),
    (["evaluate", "perplexity", "-m", tiny, "--data", "x", "--stride", "0"], 64, "stride"),
    (["evaluate", "mmlu", "-m", tiny, "--data", "x", "--shots", "-1"], 64, "--shots: expected 0 to 100, found -1"),
    (["evaluate", "needle", "-m", tiny, "--data", "x", "--depths", "0,101"], 64, "--depths: expected 0 to 100"),
    (["evaluate", "needle", "-m", tiny, "--data", "x", "--lengths", "1k"], 64, "found \"1k\""),
    (["evaluate", "needle", "-m", tiny, "--data", "x", "--repeats", "0"], 64, "--repeats: expected 1 to 1000"),
    (["evaluate", "humaneval", "-m", tiny, "--data", "x"], 64, "--allow-execution"),
    (["evaluate", "humaneval", "-m", tiny, "--data", "x", "--allow-execution", "--max-tokens", "0"], 64, "found 0"),
    (calibrate("x", "--ratio", "1.5"), 64, "ratio: expected a number from 0 to 1, found 1.5"),
    (calibrate("x", "--ratio", "0.5", "--max-kl", "1"), 64, "found several"),
    (calibrate("x", "--near-window", "-1"), 64, "near-window"),
    (calibrate("x", "--sinks", "-1"), 64, "sinks"),
    (calibrate("x", "--near-window", "0", "--choose", "windows"), 64, "choose windows: expected a near window"),
    (calibrate("x", "--choose", "layers"), 64, "choose"),
    (calibrate("x", "--mixture", "0"), 64, "mixture"),
    (calibrate("x", "--context", huge, "--tokens", huge), 64, "context: expected 32 to"),
    (calibrate("x", "--near-window", huge, "--sinks", "1"), 64, "near-window: expected 1 to 1023"),
    (calibrate("x", "--near-window", "5", "--sinks", huge), 64, "sinks: expected 0 to 1023"),
    (calibrate(folder + "/empty.txt", "--journal", folder + "/empty.txt"), 1, "found one that is read"),
    (["calibrate", "-m", tiny, "-s", tiny, "--text", "x", "-o", folder], 1, "found a folder"),
    (["bench", "-m", tiny, "--prompt-tokens", huge], 64, "prompt-tokens: expected 1 to"),
    (["bench", "-m", tiny, "--depth", huge], 64, "depth: expected 1 to"),
    (["analyze", "usage", "-m", tiny, "-s", tiny, "--text", "x", "-o", "x", "--windows", huge], 64, "windows"),
    (["generate", "-m", tiny, "-p", "x", "-n", "-1"], 64, "found -1"),
    (calibrate("x", "--tokens", "100"), 64, "tokens"),
    (calibrate("x", "--kv-budget", "-5"), 64, "kv-budget"),
    (calibrate("x", "--far", "layer"), 64, "expected none with --far layer"),
    (["calibrate", "-m", tiny, "--text", "x", "-o", "x"], 64, "small model (-s) to borrow from, or --far nothing"),
    (["calibrate", "-m", tiny, "--far", "nothing", "--text", "x"], 64, "--output"),
    (["calibrate", "-m", tiny, "-s", tiny, "--text", "x"], 1, "beside which plans stand"),
    (["bench", "-m", tiny, "--recipe", "calibrated"], 64, "small model (-s) to borrow from"),
    (["bench", "-m", tiny, "-s", tiny, "--recipe", "calibrated"], 1, "beside which plans stand"),
    (["bench", "-m", tiny, "-s", tiny, "--recipe", "calibrated", "--plan", "x"], 64, "found both"),
    (["bench", "-m", tiny, "-s", tiny, "--recipe", "calibrated", "--map-layers", "0"], 64, "expected --ratio"),
    (
      ["bench", "-m", folder + "/text.gguf", "-s", folder + "/text.gguf", "--recipe", "calibrated", "--ratio", "0.5"],
      1,
      "/text+text-0.5.plan.json: expected a calibrated plan, found none"
    ),
    (calibrate("/no/such/text"), 1, "/no/such/text"),
    (calibrate(folder + "/empty.txt"), 1, "found an empty one"),
    (calibrate(folder + "/binary.txt"), 1, "no UTF-8"),
    (calibrate(folder + "/text.gguf"), 1, "random weights"),
  ])
  func mistakesGetOneLine(arguments: [String], code: Int32, text: String) throws {
    let outcome = try run(arguments)
    #expect(outcome.code == code)
    #expect(outcome.errors.count == 1, "\(outcome.errors)")
    #expect(outcome.errors.first?.hasPrefix("kindred: ") == true && outcome.errors.first?.contains(text) == true)
    #expect(outcome.output.isEmpty)
  }

  @Test func noNetworkLeavesNothingBehind() throws {
    let home = Self.folder + "/home"
    let outcome = try run(
      ["fetch", "smollm2-135m"],
      environment: [
        "KINDRED_HOME": home, "HF_ENDPOINT": "http://127.0.0.1:9", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "",
      ])
    #expect(outcome.code == 1)
    #expect(outcome.errors.last?.hasPrefix("kindred: ") == true)
    let left = FileManager.default.enumerator(atPath: home)?.allObjects as? [String] ?? []
    #expect(!left.contains { $0.hasSuffix(".gguf") })
  }

  @Test func benchReportsWhatItMeasured() throws {
    let outcome = try run(
      [
        "bench", "-m", Self.tiny, "-s", Self.tiny, "--map-layers", "0", "--prompt-tokens", "130", "--generate-tokens",
        "3",
        "--batch", "2", "--repeat", "1", "--json",
      ])
    #expect(outcome.code == 0, "\(outcome.errors)")
    let json = try #require(outcome.json)
    for key in [
      "prefill_tokens_per_second", "decode_tokens_per_second", "ttft_seconds", "tpot_seconds", "peak_rss_bytes",
      "weight_bytes", "kv_bytes", "kv_bytes_small",
    ] {
      #expect((json[key] as? Double ?? 0) > 0, "\(key)")
    }
    // 133 positions in 3 pages of 64, 2 sequences, 2 KV heads of 64 elements in 2 bytes: keys are what is saved.
    let keys = 3 * 64 * 2 * 2 * 64 * 2
    #expect(json["kv_bytes_unmapped"] as? Int == 2 * keys)
    #expect(json["kv_bytes_large"] as? Int == keys)
    #expect(json["isa"] is String && json["threads"] as? Int ?? 0 > 0)
    #expect(json["mapped_layers"] as? [Int] == [0])
  }

  @Test func recipesAreRun() throws {
    let outcome = try run(
      [
        "bench", "-m", "random:qwen2-0.5b:layers=2", "-s", Self.tiny, "--ratio", "0.5", "--similarity", "minkowski-1",
        "--strategy", "most-similar", "--establish-tokens", "10", "--remap-every", "2", "--prompt-tokens", "30",
        "--generate-tokens", "6", "--repeat", "1", "--json",
      ])
    #expect(outcome.code == 0, "\(outcome.errors)")
    let json = try #require(outcome.json)
    // One layer's keys of 35 positions in a page; which layer's, only the prompt tells.
    let keys = 64 * 2 * 64 * 2
    #expect(json["kv_bytes_large"] as? Int == 3 * keys && json["kv_bytes_small"] as? Int == 2 * keys)
    #expect(json["mapped_layers"] == nil)
  }

  @Test func theSmallModelsCacheHasATypeOfItsOwn() throws {
    func report(_ options: [String]) throws -> [String: Any] {
      let outcome = try run(
        [
          "bench", "-m", Self.tiny, "-s", Self.tiny, "--map-layers", "0", "--prompt-tokens", "130",
          "--generate-tokens", "3", "--repeat", "1", "--json",
        ] + options)
      #expect(outcome.code == 0, "\(outcome.errors)")
      return try #require(outcome.json)
    }
    let plain = try report([])
    #expect(plain["kv_type"] as? String == "f16" && plain["small_kv_type"] as? String == "f16")
    let json = try report(["--small-kv-type", "q4_0"])
    #expect(json["kv_type"] as? String == "f16" && json["small_kv_type"] as? String == "q4_0")
    // 133 positions in 3 pages of 64, 64 elements in 2 blocks.
    let small = try #require(plain["kv_bytes_small"] as? Int)
    #expect(small % (3 * 64 * 128) == 0 && json["kv_bytes_small"] as? Int == small / 64 * 18)
    #expect(json["kv_bytes_large"] as? Int == plain["kv_bytes_large"] as? Int)
    let both = try report(["--kv-type", "q8_0"])
    #expect(both["small_kv_type"] as? String == "q8_0" && both["kv_bytes_small"] as? Int == small / 64 * 34)
  }

  @Test func plansAreRun() throws {
    let outcome = try run(
      [
        "bench", "-m", Self.tiny, "--plan", Self.folder + "/plan.json", "--prompt-tokens", "130", "--generate-tokens",
        "3", "--batch", "2", "--repeat", "1", "--json",
      ])
    #expect(outcome.code == 0, "\(outcome.errors)")
    let json = try #require(outcome.json)
    // 132 positions in 3 pages of 64; the next one sees the sinks and 117 to 131, in 3 blocks of 16.
    let element = 2 * 2 * 64 * 2  // of 2 sequences, keys and values of 64 elements in 2 bytes
    #expect(json["kv_bytes_unmapped"] as? Int == 2 * 3 * 64 * element)
    #expect(json["kv_bytes_large"] as? Int == (3 * 64 + 3 * 16) * element)
    #expect(json["kv_bytes_small"] as? Int == 0)
    #expect(json["mapped_layers"] as? [Int] == [0])
  }

  @Test func plansAreShown() throws {
    let text = try run(["inspect", Self.folder + "/plan.json"]).output
    #expect(text.contains("1 of 2 units mapped") && text.contains("4 + 16") && text.contains("made by  hand"))
    let json = try run(["inspect", Self.folder + "/plan.json", "--json"]).json
    #expect(json?["version"] as? Int == 1 && (json?["units"] as? [Any])?.count == 1)
  }

  @Test func profileNamesEveryOperation() throws {
    let outcome = try run(
      [
        "bench", "-m", Self.tiny, "--prompt-tokens", "3", "--generate-tokens", "2", "--repeat", "1", "--profile",
        "--json",
      ])
    let profile = try #require(outcome.json?["profile"] as? [String: [String: [String: Any]]])
    for phase in ["prefill", "decode"] {
      let rows = try #require(profile["large"]?[phase]?["operations"] as? [[String: Any]])
      let names = Set(rows.compactMap { $0["operation"] as? String })
      #expect(names.isSuperset(of: ["Q, K, V", "attention", "attention output", "gate, up, SiLU", "down", "output"]))
      #expect(rows.allSatisfy { $0["seconds_per_step"] as? Double ?? 0 > 0 })
    }
  }

  @Test func explainComparesPredictionAndMeasurement() throws {
    let arguments = [
      "bench", "-m", "random:qwen2-0.5b:layers=2", "-s", Self.tiny, "--ratio", "0.5", "--generate-tokens", "2",
      "--repeat", "1", "--explain",
    ]
    let json = try run(arguments + ["--prompt-tokens", "24", "--json"]).json
    let saving = try #require(json?["saving"] as? [String: Any])
    #expect(saving["small_share"] as? Double == 2.0 / 24)
    for phase in ["ttft", "tpot"] {
      let figures = try #require(saving[phase] as? [String: Any])
      for key in ["unmapped_seconds", "predicted_seconds", "measured_seconds", "predicted_gain", "measured_gain"] {
        #expect(figures[key] as? Double ?? 0 > 0, "\(phase) \(key)")
      }
    }
    let text = try run(arguments + ["--depth", "30", "--batch", "2"]).output
    #expect(text.contains("time per token, batch 2, depth 30") && !text.contains("time to first token, prompt"))
  }

  @Test(arguments: [
    ([], "kindred generate -m qwen2.5-coder-1.5b"), (["generate"], "--prompt-file"), (["chat"], "Ctrl-C ends"),
    (["bench"], "--explain"), (["evaluate", "perplexity"], "--score-from"), (["fetch"], "hf:OWNER/REPO"),
    (["inspect"], "plan"), (["calibrate"], "--choose <choose>"), (["analyze", "usage"], "--windows"),
    (["report"], "report.html"),
  ])
  func helpTeaches(command: [String], text: String) throws {
    let outcome = try run(command + ["--help"])
    #expect(outcome.code == 0)
    #expect(outcome.output.contains("USAGE: kindred") && outcome.output.contains(text), "\(outcome.output)")
  }

  /// Where standard output takes nothing, that is an error and not a crash, also of what is written at the end.
  @Test(.enabled(if: FileManager.default.fileExists(atPath: "/dev/full"), "needs /dev/full"), arguments: [true, false])
  func fullOutputIsAnError(json: Bool) throws {
    let process = Process()
    process.executableURL = tool
    process.arguments = ["inspect", Self.folder + "/plan.json"] + (json ? ["--json"] : [])
    process.standardOutput = try #require(FileHandle(forWritingAtPath: "/dev/full"))
    let errors = Pipe()
    process.standardError = errors
    try process.run()
    let text = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    #expect(process.terminationReason == .exit && process.terminationStatus == 1)
    #expect(text.hasPrefix("kindred: standard output: expected to write to it"))
  }
}
