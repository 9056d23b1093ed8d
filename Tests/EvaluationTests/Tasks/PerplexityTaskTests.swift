// Perplexity by several methods: one run beside each other equals each by itself; words and bytes are counted as lm-
// evaluation-harness counts them; windows that are in the journal are not read again.

import Foundation
import KindredAttentionMapping
import KindredCompute
import KindredEvaluation
import KindredGeneration
import KindredTransformer
import Testing

@Suite struct PerplexityTaskTests {
  let tiny: TinyModels
  let text = TinyTask.words(90, seed: 3) + " \n " + TinyTask.words(40, seed: 8)

  init() throws { tiny = try TinyModels() }

  var options: PerplexityOptions {
    var options = PerplexityOptions()
    options.context = 100
    options.stride = 100
    options.scoreFrom = 50
    options.chunk = 33
    return options
  }

  var sessionOptions: Session<CPUBackend>.Options {
    var options = Session<CPUBackend>.Options()
    options.kvType = .f32
    return options
  }

  func task(_ methods: [EvaluationMethod]) throws -> PerplexityTask<CPUBackend> {
    try PerplexityTask(methods: methods, models: tiny.models, options: options, sessionOptions: sessionOptions)
  }

  @Test func methodsTogetherAreMethodsAlone() throws {
    let methods = try tiny.methods()
    let together = try task(methods).run(text)
    for (method, result) in zip(methods, together.results) {
      let runnable = try tiny.models.runnable(method, length: 100)
      let alone = try PerplexityEvaluation(
        runnable.decoder, mappings: [runnable.mapping], options: options, sessionOptions: sessionOptions
      ).runAll(try #require(tiny.models.large.tokenizer).encode(text))[0]
      #expect(result.perplexity == alone.perplexity && result.tokensScored == alone.tokensScored, "\(method.name)")
      #expect((result.klToUnmapped == nil) == (method == .unmapped))
      #expect(result.unmappedPerplexity == (method == .unmapped ? nil : together.results[0].perplexity))
      if method != .small { #expect(result.klToUnmapped == alone.klToUnmapped) }
    }
    let results = try together.methodResults(seed: 1)
    for (found, result) in zip(results, together.results) {
      #expect(found.scores["perplexity"]?.value == result.perplexity)
      #expect(try #require(found.scores["perplexity"]).low < result.perplexity)
    }
    #expect(results[0].differences.isEmpty && results[1].differences["perplexity"] != nil)
  }

  /// Python: `len(re.split(r"\s+", text))` and `len(text.encode("utf-8"))`.
  @Test func wordsAndBytesAreThoseOfTheHarness() throws {
    let tokenizer = try #require(tiny.models.large.tokenizer)
    for (text, words) in [("a bc", 2), (" a  b\n", 4), ("a", 1), ("a \n\n b c ", 4)] {
      var score = WindowScore()
      score.count(tokenizer.encode(text)[...], tokenizer)
      #expect(score.spaces + 1 == words && score.bytes == text.utf8.count, "\(text)")
    }
    var score = WindowScore()
    (score.tokens, score.spaces, score.bytes, score.nll) = (8, 4, 20, 10)
    let metrics = WindowScore.metrics(of: [score.sums, score.sums])
    #expect(metrics["perplexity"] == exp(10.0 / 8))
    #expect(metrics["word_perplexity"] == exp(20.0 / 9))
    #expect(metrics["byte_perplexity"] == exp(0.5))
    #expect(metrics["kl_to_unmapped"] == nil)
  }

  /// The sum that is spread over tokens, words and bytes is one.
  @Test func threePerplexitiesAreOneSum() throws {
    let tokenizer = try #require(tiny.models.large.tokenizer)
    let tokens = tokenizer.encode(text)
    let result = try task([.unmapped]).run(text).results[0]
    let scored = options.windows(count: tokens.count).map { window in
      tokenizer.decode(tokens[window.lowerBound + 50..<window.upperBound])
    }
    let sum = log(result.perplexity) * Double(result.tokensScored)
    #expect(abs(log(try #require(result.bytePerplexity)) * Double(scored.joined().utf8.count) - sum) < 1e-6)
    let words = scored.reduce(1) { $0 + $1.split(omittingEmptySubsequences: true) { !$0.isWhitespace }.count }
    #expect(abs(log(try #require(result.wordPerplexity)) * Double(words) - sum) < 1e-6)
  }

  struct Interruption: Error {}

  @Test func interruptedRunsGoOn() throws {
    let methods = try tiny.methods()
    let whole = try task(methods).run(text)
    let journal = tiny.folder("journal")
    #expect(throws: Interruption.self) {
      try task(methods).run(text, journalPath: journal) { done, _, _ in if done == 2 { throw Interruption() } }
    }
    let content = try Data(contentsOf: URL(fileURLWithPath: journal))
    try content.dropLast(30).write(to: URL(fileURLWithPath: journal))
    let resumed = try task(methods).run(text, journalPath: journal)
    #expect(resumed.results == whole.results)
    let size = try Data(contentsOf: URL(fileURLWithPath: journal)).count
    // All is there, also for fewer methods.
    #expect(
      try task([.small, .unmapped]).run(text, journalPath: journal).results == [whole.results[1], whole.results[0]])
    #expect(try Data(contentsOf: URL(fileURLWithPath: journal)).count == size)
    #expect(throws: (any Error).self) { try task([.small]).run(text + "a", journalPath: journal) }
  }
}
