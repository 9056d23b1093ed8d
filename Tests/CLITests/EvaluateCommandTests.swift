// `kindred evaluate` as users meet it, on the tiny pair of `AttentionMappingTests` with a tokenizer of single
// characters: several methods side by side, and a run that is killed and started again.

import Foundation
import Testing

@Suite(.enabled(if: FileManager.default.isExecutableFile(atPath: tool.path), "the tool is not built"), .serialized)
final class EvaluateCommandTests {
  let folder: URL

  init() throws {
    folder = FileManager.default.temporaryDirectory.appendingPathComponent("kindred-evaluate-\(UUID().uuidString)")
    let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .appendingPathComponent("AttentionMappingTests/Fixtures/pair")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    for name in ["large", "small"] {
      let copy = folder.appendingPathComponent(name)
      try FileManager.default.copyItem(at: fixtures.appendingPathComponent(name), to: copy)
      try Data(AnalyzeCommandTests.tokenizer(first: "!").utf8)
        .write(to: copy.appendingPathComponent("tokenizer.json"))
    }
    let sentences = (0..<40).map { "a film that is \($0 * 37 % 91) times too long\t\($0 % 2)\n" }.joined()
    try Data(("sentence\tlabel\n" + sentences).utf8).write(to: folder.appendingPathComponent("sentences.tsv"))
    let text = (0..<120).map { "line \($0 * 37 % 91): the quick brown fox\n" }.joined()
    try Data(text.utf8).write(to: folder.appendingPathComponent("text"))
  }

  deinit { try? FileManager.default.removeItem(at: folder) }

  func path(_ name: String) -> String { folder.appendingPathComponent(name).path }

  func perplexity(_ options: String...) -> [String] {
    [
      "evaluate", "perplexity", "-m", path("large"), "-s", path("small"), "--data", path("text"), "--context", "64",
      "--score-from", "40", "--establish-tokens", "30",
    ] + options
  }

  static let methods = "unmapped,small,paper:0.34,random:0.34,shared:0.34,streaming:1"

  /// A result apart from times and dates, and from names of files that differ between runs.
  func timeless(_ json: [String: Any]?) throws -> NSDictionary {
    var json = try #require(json)
    var provenance = try #require(json["provenance"] as? [String: Any])
    for key in ["date", "command_line"] { provenance[key] = nil }
    json["provenance"] = provenance
    json["methods"] = try #require(json["methods"] as? [[String: Any]]).map { method in
      method.filter { $0.key != "seconds" }
    }
    return json as NSDictionary
  }

  @Test func methodsStandSideBySide() throws {
    let outcome = try run(
      perplexity("--methods", Self.methods, "--max-windows", "6", "--output", path("result.json"), "--json"))
    #expect(outcome.code == 0, "\(outcome.errors)")
    let json = try #require(outcome.json)
    #expect(json["task"] as? String == "perplexity" && json["items"] as? Int == 6)
    let methods = try #require(json["methods"] as? [[String: Any]])
    #expect(methods.compactMap { $0["method"] as? String }.joined(separator: ",") == Self.methods + ".0")
    for method in methods {
      let scores = try #require(method["scores"] as? [String: [String: Double]])
      for metric in ["perplexity", "word_perplexity", "byte_perplexity", "nll"] {
        let score = try #require(scores[metric])
        #expect(try #require(score["low"]) <= #require(score["value"]) && score["value"]! <= score["high"]!)
      }
      let differences = try #require(method["differences"] as? [String: Any])
      #expect(differences.isEmpty == (method["method"] as? String == "unmapped"))
      #expect(method["kv_bytes"] as? Int ?? 0 > 0 && method["unmapped_kv_bytes"] as? Int ?? 0 > 0)
    }
    let provenance = try #require(json["provenance"] as? [String: Any])
    let files = try #require(provenance["files"] as? [String: String])
    #expect(files.keys.contains("text") && files.keys.contains("large/model.safetensors"))
    #expect(files.values.allSatisfy { $0.count == 64 })
    let stored = try JSONSerialization.jsonObject(with: Data(contentsOf: folder.appendingPathComponent("result.json")))
    #expect(try timeless(stored as? [String: Any]) == timeless(json))
    // Again: all is in the journal beside the output.
    let again = try run(
      perplexity("--methods", Self.methods, "--max-windows", "6", "--output", path("result.json"), "--json"))
    #expect(try #require(again.json)["methods"] as? NSArray == json["methods"] as? NSArray)
    let table = try run(perplexity("--methods", "unmapped,paper:0.34", "--max-windows", "3")).output
    #expect(table.contains("perplexity: 3 items") && table.contains("less unmapped") && table.contains("paper:0.34"))
  }

  @Test func oneMethodKeepsItsKeys() throws {
    let json = try #require(try run(perplexity("--max-windows", "3", "--ratio", "0.34", "--json")).json)
    for key in [
      "perplexity", "nll", "word_perplexity", "byte_perplexity", "windows", "tokens_scored", "kl_to_unmapped",
      "top1_agreement", "unmapped_perplexity", "kv_bytes", "kv_bytes_saved_fraction", "model", "small_model",
    ] {
      #expect(json[key] != nil, "\(key)")
    }
    #expect(json["model"] as? String == "large" && json["small_model"] as? String == "small")
  }

  /// Killed in the middle without a warning and started again, an evaluation ends as one that was not.
  @Test(arguments: ["perplexity", "sst2"])
  func killedRunsGoOn(task: String) throws {
    func arguments(_ journal: String) -> [String] {
      let options = ["--methods", Self.methods, "--journal", path(journal), "--json"]
      if task == "perplexity" { return perplexity() + options }
      return [
        "evaluate", task, "-m", path("large"), "-s", path("small"), "--data", path("sentences.tsv"), "--batch", "3",
      ] + options
    }
    let whole = try run(arguments("whole"))
    #expect(whole.code == 0, "\(whole.errors)")
    func lines(_ journal: String) -> Int {
      let content = (try? Data(contentsOf: folder.appendingPathComponent(journal))) ?? Data()
      return content.count { $0 == UInt8(ascii: "\n") }
    }
    for wanted in [3, 150] {
      let process = Process()
      process.executableURL = tool
      process.arguments = arguments("killed")
      process.standardOutput = FileHandle.nullDevice
      process.standardError = FileHandle.nullDevice
      try process.run()
      while lines("killed") < wanted, process.isRunning { usleep(500) }
      kill(process.processIdentifier, SIGKILL)
      process.waitUntilExit()
      #expect(process.terminationReason == .uncaughtSignal)
      #expect(lines("killed") >= wanted && lines("killed") < lines("whole"))
    }
    let resumed = try run(arguments("killed"))
    #expect(resumed.code == 0, "\(resumed.errors)")
    #expect(try timeless(resumed.json) == timeless(whole.json))
    #expect(lines("killed") == lines("whole"))
  }

  @Test func journalsOfOtherRunsAreRefused() throws {
    let first = try run(perplexity("--methods", "small", "--max-windows", "1", "--journal", path("j")))
    #expect(first.code == 0, "\(first.errors)")
    let other = try run(perplexity("--methods", "small", "--kv-type", "f32", "--journal", path("j")))
    #expect(other.code == 1 && other.errors.count == 1)
    #expect(other.errors.first?.contains("expected the journal of this run") == true)
    // The same two models, each in the other's place.
    let swapped = try run(
      perplexity("--methods", "small", "--max-windows", "1", "--journal", path("j")).map { argument in
        [path("large"): path("small"), path("small"): path("large")][argument] ?? argument
      })
    #expect(swapped.code == 1 && swapped.errors.first?.contains("expected the journal of this run") == true)
  }

  @Test func outputsDoNotReplaceWhatIsRead() throws {
    let (large, weights, text) = (path("large"), path("large/model.safetensors"), path("text"))
    for (model, methods, output) in [
      (large, "unmapped", text), (weights, "unmapped", weights), (large, "unmapped,plan:\(weights)", weights),
    ] {
      let before = try Data(contentsOf: URL(fileURLWithPath: output))
      let outcome = try run([
        "evaluate", "perplexity", "-m", model, "--data", text, "--methods", methods, "--output", output,
      ])
      #expect(outcome.code == 1 && outcome.errors.first?.contains("found one that is read") == true)
      #expect(try Data(contentsOf: URL(fileURLWithPath: output)) == before)
    }
  }

  @Test func weightsThatAreNoNumbersAreNamed() throws {
    let file = folder.appendingPathComponent("large/model.safetensors")
    var bytes = try Data(contentsOf: file)
    bytes.replaceSubrange((bytes.count - 4)..., with: [0, 0, 0xC0, 0x7F])
    try bytes.write(to: file)
    let outcome = try run(perplexity("--methods", "unmapped", "--max-windows", "1", "--json"))
    #expect(outcome.code == 1 && outcome.errors.count == 1 && outcome.output.isEmpty, "\(outcome.errors)")
    #expect(outcome.errors.first?.contains("window 0, unmapped: expected finite log-likelihoods") == true)
  }

  @Test(arguments: [
    (["--methods", "papers:0.3"], 64, "found \"papers:0.3\""),
    (["--methods", "paper:2"], 64, "expected a number from 0 to 1"),
    (["--methods", "small,small"], 64, "found small twice"),
    (["--methods", "unmapped,"], 64, "found \"\""),
    (["--methods", "shared:1"], 1, "found none below layer 0"),
    (["--methods", "plan:/no/such/plan.json"], 1, "/no/such/plan.json"),
    (["--output", "x.json"], 64, "expected --methods"),
    (["--methods", "small", "--output", "/no/such/folder/x.json"], 1, "a folder that can be written to"),
    (["--methods", "small", "--journal", "/no/such/folder/x"], 1, "the journal could not be written"),
  ])
  func mistakesGetOneLine(options: [String], code: Int32, text: String) throws {
    let outcome = try run(
      [
        "evaluate", "perplexity", "-m", path("large"), "-s", path("small"), "--data", path("text"), "--max-windows",
        "1", "--context", "64", "--score-from", "40",
      ] + options)
    #expect(outcome.code == code && outcome.errors.count == 1, "\(outcome.errors)")
    #expect(outcome.errors.first?.contains(text) == true, "\(outcome.errors)")
  }

  @Test func smallModelsAreAskedForBeforeAnythingIsLoaded() throws {
    let outcome = try run(
      ["evaluate", "perplexity", "-m", "no such model", "--data", path("text"), "--methods", "unmapped,random:0.5"])
    #expect(outcome.code == 64)
    #expect(outcome.errors.first?.contains("random:0.5: expected a small model (-s)") == true)
  }
}
