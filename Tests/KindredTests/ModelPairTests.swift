// The library as a program uses it, on real models where they are fetched.

import Kindred
import Testing

private func isFetched(_ names: String...) -> Bool { names.allSatisfy { (try? ModelStore().path(of: $0)) != nil } }

@Suite(.serialized) struct ModelPairTests {
  func text(_ model: ModelPair, _ prompt: String, _ options: GenerationOptions) async throws -> String {
    var text = ""
    for try await piece in model.generate(prompt, options: options) { text += piece.text }
    return text
  }

  @Test(.enabled(if: isFetched("smollm2-135m"), "smollm2-135m is not fetched"))
  func aModelAloneGenerates() async throws {
    let model = try ModelPair(large: "smollm2-135m")
    #expect(model.statistics == nil)
    let first = try await text(model, "The capital of France is", GenerationOptions(maxTokens: 8))
    #expect(first.contains("Paris"))
    #expect(model.statistics?.generatedTokens == 8)
    #expect(model.statistics?.stopReason == .maxTokens)
    let stopped = try await text(model, "The capital of France is", GenerationOptions(maxTokens: 8, stops: ["Par"]))
    #expect(first.hasPrefix(stopped) && !stopped.contains("Par"))
    #expect(model.statistics?.stopReason == .stopString)
    await #expect(throws: PromptError.empty) { try await text(model, "", GenerationOptions()) }
  }

  @Test(
    .enabled(if: isFetched("qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"), "the Qwen pair is not fetched"))
  func aPairSavesTheKeysOfItsMappedLayers() async throws {
    let pair = try ModelPair(large: "qwen2.5-coder-1.5b", small: "qwen2.5-coder-0.5b", plan: .paper(ratio: 0.3))
    _ = try await text(pair, "def fibonacci(n):", GenerationOptions(maxTokens: 30))
    let kv = try #require(pair.statistics?.kv)
    // 8 of 28 layers; one page of 64 positions, 2 KV heads of 128 elements in 2 bytes.
    #expect(kv.unmapped - kv.large == 8 * 64 * 2 * 128 * 2)
    #expect(kv.small > 0)
  }

  @Test(
    .enabled(if: isFetched("smollm2-135m", "qwen2.5-coder-0.5b"), "smollm2-135m or qwen2.5-coder-0.5b is not fetched"))
  func otherSeriesAreRefused() {
    #expect(throws: VocabularyMismatch.self) { try ModelPair(large: "smollm2-135m", small: "qwen2.5-coder-0.5b") }
  }
}
