// Scenarios: their files, their sizes, and a run on tiny random models.

import Foundation
import KindredAttentionMapping
import KindredCompute
import KindredEvaluation
import KindredGeneration
import KindredModelFiles
import KindredTransformer
import Testing

@Suite(.serialized) struct ScenarioTests {
  func scenario(_ text: String) throws -> Scenario {
    let folder = try ResultsFolder(["chat.json": text])
    return try Scenario(named: folder.path + "/chat.json")
  }

  @Test func published() throws {
    let users = try Scenario(named: "paper-multi-user")
    #expect(users.sizes == "64 sequences of 512 + 512 tokens" && users.ratio == 0.5 && users.problem == nil)
    #expect(try Scenario(named: "paper-long-context").sizes == "4 sequences of 8192 + 512 tokens")
    #expect(users.scaled(by: 0.25).sizes == "16 sequences of 128 + 128 tokens")
    #expect(users.scaled(by: 0.001).sizes == "1 sequence of 1 + 2 tokens" && users.scaled(by: 0.001).scale == 0.001)
  }

  @Test func files() throws {
    let ratio = try scenario(#"{"sequences": 8, "prompt_tokens": 256, "generate_tokens": 64, "ratio": 0.3}"#)
    #expect(ratio.name == "chat" && ratio.ratio == 0.3 && ratio.plan == nil)
    let plan = try scenario(
      #"{"name": "n", "sequences": 8, "prompt_tokens": 256, "generate_tokens": 64, "plan": "plans/a.json"}"#)
    #expect(plan.name == "n" && plan.plan?.hasSuffix("/plans/a.json") == true && plan.plan?.hasPrefix("/") == true)
  }

  @Test(arguments: [
    (#"{"prompt_tokens": 256, "generate_tokens": 64}"#, "sequences: expected an integer, found nothing"),
    (#"{"sequences": 0, "prompt_tokens": 256, "generate_tokens": 64}"#, "sequences: expected 1 to 512, found 0"),
    (#"{"sequences": 1, "prompt_tokens": 0, "generate_tokens": 64}"#, "prompt_tokens: expected 1 to"),
    (#"{"sequences": 1, "prompt_tokens": 9, "generate_tokens": 1}"#, "generate_tokens: expected 2 to"),
    (#"{"sequences": 1, "prompt_tokens": 9, "generate_tokens": 9, "ratio": 2}"#, "ratio: expected a number from 0"),
    (
      #"{"sequences": 1, "prompt_tokens": 9, "generate_tokens": 9, "ratio": 0, "plan": "a"}"#,
      "plan: expected a ratio or a plan, found both"
    ),
    (#"{"sequences": 1, "promt_tokens": 9}"#, #"found "promt_tokens""#), ("[]", "expected an object"),
    (#"{"sequences": 1.5}"#, "sequences: expected an integer, found 1.5"), ("{", "JSON"),
  ])
  func brokenFiles(text: String, problem: String) throws {
    let error = #expect(throws: ModelFileError.self) { try scenario(text) }
    #expect(error?.description.contains(problem) == true, "\(error as Any)")
  }

  @Test func unknownNames() {
    let error = #expect(throws: ModelFileError.self) { try Scenario(named: "paper-multi-users") }
    #expect(error?.description.contains("expected paper-multi-user, paper-long-context or a file, found none") == true)
  }

  // MARK: Runs

  typealias Profiling = ProfilingBackend<CPUBackend>

  /// One tiny model on two backends, as large and as small one.
  struct Models {
    let large: LanguageModel<Profiling>
    let small: LanguageModel<Profiling>

    init() throws {
      let model = OpenedModel(random: try RandomModel("random:qwen2-0.5b:layers=1"))
      let backend = try CPUBackend(threads: 2)
      large = try LanguageModel(model, backend: Profiling(backend))
      small = try LanguageModel(model, backend: Profiling(backend))
    }

    func mapping(_ layers: [Int]) -> Session<Profiling>.Mapping {
      var recipe = PaperRecipe(layers: .explicit(layers))
      recipe.establishmentTokens = 20
      return .established(small: small.decoder, recipe: recipe)
    }
  }

  static let models = Result { try Models() }

  var tiny: Scenario { Scenario(name: "tiny", sequences: 3, promptTokens: 24, generatedTokens: 4) }

  @Test func bothVariantsAreMeasured() throws {
    let models = try Self.models.get()
    var runs: [[Int]] = []
    let result = try ScenarioBenchmark(
      models.large, mapping: models.mapping([0]), scenario: tiny, repeats: 2, publishedLayers: 4
    ).run { runs.append([$0, $1]) }
    #expect(runs == [[0, 4], [1, 4], [2, 4], [3, 4]])
    let mapped = try #require(result.mapped)
    // 28 positions take one page of 64, 3 sequences, 2 KV heads of 64 elements in 2 bytes; mapped: values only.
    let values = 3 * 64 * 2 * 64 * 2
    #expect(result.unmapped.kvBytesLarge == 2 * values && result.unmapped.kvBytesSmall == 0)
    #expect(mapped.kvBytesLarge == values && mapped.kvBytesSmall > 0)
    #expect(result.smallShare == 0.25 && result.mappedLayerCount == 1)
    #expect(result.publishedKVBytes(mapped) == Double(4 * values + mapped.kvBytesSmall))
    for figures in [result.unmapped, mapped] {
      #expect(figures.ttftSeconds.median > figures.firstTTFTSeconds.median && figures.firstTTFTSeconds.minimum > 0)
      #expect(figures.tpotSeconds.minimum > 0)
      // 3 × (24 + 4) tokens and 3 × 4 generated ones in the same time.
      let ratio = figures.tokensPerSecond.median / figures.generatedTokensPerSecond.median
      #expect(abs(ratio - 7) < 1e-9)
    }
    #expect(result.unmapped.smallTTFTSeconds == 0 && result.unmapped.smallTPOTSeconds == 0)
    #expect(mapped.smallTTFTSeconds > 0 && mapped.smallTTFTSeconds < mapped.ttftSeconds.maximum)
    #expect(mapped.smallTPOTSeconds > 0 && mapped.smallTPOTSeconds < mapped.tpotSeconds.maximum)
    let gain = try #require(result.gain)
    #expect(gain.ttft.minimum > 0 && gain.ttft.minimum <= gain.ttft.median && gain.ttft.median <= gain.ttft.maximum)
  }

  @Test func modelAlone() throws {
    let models = try Self.models.get()
    let result = try ScenarioBenchmark(models.large, mapping: nil, scenario: tiny, repeats: 1).run()
    #expect(result.mapped == nil && result.gain == nil && result.smallShare == 1)
    #expect(result.comparison.allSatisfy { $0.count == ScenarioResult.comparisonColumns.count })
  }

  @Test func nothingBorrows() throws {
    let models = try Self.models.get()
    #expect(throws: NoSaving.self) {
      try ScenarioBenchmark(models.large, mapping: models.mapping([]), scenario: tiny, repeats: 1).run()
    }
  }

  /// What is written is read back: the report's rows are the result's.
  @Test func json() throws {
    let models = try Self.models.get()
    let result = try ScenarioBenchmark(
      models.large, mapping: models.mapping([0]), scenario: tiny.scaled(by: 0.99), repeats: 1, publishedLayers: 3
    ).run()
    let text = String(decoding: try JSONEncoder().encode(["scenario": result]), as: UTF8.self)
    let folder = try ResultsFolder(["a.json": text])
    let lines = try Report(folder: folder.path).markdown(page: "").split(separator: "\n")
    for row in result.comparison {
      #expect(lines.contains { $0 == "| \(row.joined(separator: " | ")) |" }, "\(row)")
    }
    for sentence in result.conditions { #expect(lines.contains { $0 == "- \(sentence)" }, "\(sentence)") }
  }
}
