import KindredEvaluation
import Testing

@Suite struct PerplexityOptionsTests {
  func options(_ context: Int, _ stride: Int, from: Int) -> PerplexityOptions {
    var options = PerplexityOptions()
    options.context = context
    options.stride = stride
    options.scoreFrom = from
    return options
  }

  @Test func windowsCoverTheText() {
    #expect(options(10, 10, from: 1).windows(count: 35) == [0..<10, 10..<20, 20..<30])
    #expect(options(10, 5, from: 1).windows(count: 21) == [0..<10, 5..<15, 10..<20])
    #expect(options(10, 10, from: 1).windows(count: 10) == [0..<10])
    #expect(options(10, 10, from: 1).windows(count: 4) == [0..<4])
    #expect(options(10, 10, from: 5).windows(count: 5) == [])
    var few = options(10, 10, from: 1)
    few.maxWindows = 2
    #expect(few.windows(count: 100).count == 2)
  }

  @Test func noTokenIsScoredTwice() {
    let overlapping = options(10, 4, from: 3)
    #expect(overlapping.scored(inWindow: 0, length: 10) == 3..<10)
    #expect(overlapping.scored(inWindow: 1, length: 10) == 6..<10)
    #expect(options(10, 10, from: 3).scored(inWindow: 1, length: 10) == 3..<10)
  }

  @Test func wrongOptionsAreNamed() {
    #expect(options(10, 10, from: 1).problem == nil)
    #expect(options(1, 1, from: 1).problem?.contains("context") == true)
    #expect(options(10, 11, from: 1).problem?.contains("stride") == true)
    #expect(options(10, 0, from: 1).problem?.contains("stride") == true)
    #expect(options(10, 10, from: 0).problem?.contains("score-from") == true)
    #expect(options(10, 10, from: 10).problem?.contains("score-from") == true)
  }
}

@Suite struct PredictionTests {
  @Test func divergenceIsKL() {
    // Probabilities 1/4, 3/4 and 1/2, 1/2.
    let first = Prediction(logits: [0, 1.0986123])
    let second = Prediction(logits: [2, 2])
    #expect(abs(first.logProbability(1) + 0.2876821) < 1e-6)
    #expect(abs(first.divergence(to: second) - 0.1308122) < 1e-6)
    #expect(abs(first.divergence(to: first)) < 1e-7)
    #expect(first.mostLikely == 1)
  }
}
