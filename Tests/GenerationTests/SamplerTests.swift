import Foundation
import KindredGeneration
import Testing

@Suite struct SamplerTests {
  let logits: [Float] = [1, 4, 2, 3.5, -1, 4]

  func counts(draws: Int = 20_000, _ change: (inout SamplingOptions) -> Void) -> [Int] {
    var options = SamplingOptions()
    options.temperature = 1
    options.seed = 7
    change(&options)
    var sampler = Sampler(options)
    var counts = Array(repeating: 0, count: logits.count)
    for _ in 0..<draws { counts[Int(sampler.next(logits, history: []))] += 1 }
    return counts
  }

  @Test func greedyTakesTheFirstOfTheLargest() {
    var sampler = Sampler(SamplingOptions())
    #expect(sampler.next(logits, history: []) == 1)
    #expect(Sampler.mostLikely([-.infinity, -.infinity]) == 0)
  }

  @Test func drawsFollowTheSoftmax() {
    let weights = logits.map { exp(Double($0)) }
    let total = weights.reduce(0, +)
    for (count, weight) in zip(counts { _ in }, weights) {
      let expected = 20_000 * weight / total
      // Five standard deviations of a binomial count.
      #expect(abs(Double(count) - expected) < 5 * expected.squareRoot() + 1)
    }
  }

  @Test func filtersKeepTheMostLikely() {
    #expect(counts { $0.topK = 2 }.indices.filter { counts { $0.topK = 2 }[$0] > 0 } == [1, 5])
    // Probabilities: 0.354, 0.354, 0.215, 0.048, …; 0.75 needs three tokens.
    #expect(counts { $0.topP = 0.75 }.enumerated().filter { $0.element > 0 }.map(\.offset) == [1, 3, 5])
    // e^(2 − 4) = 0.135 of the best one's probability.
    #expect(counts { $0.minP = 0.13 }.enumerated().filter { $0.element > 0 }.map(\.offset) == [1, 2, 3, 5])
    #expect(counts { $0.minP = 0.14 }.enumerated().filter { $0.element > 0 }.map(\.offset) == [1, 3, 5])
  }

  @Test func repetitionPenaltyLowersWhatOccurred() {
    var options = SamplingOptions()
    options.repetitionPenalty = 2
    var sampler = Sampler(options)
    #expect(sampler.next(logits, history: [1, 5]) == 3)
    #expect(sampler.next([-1, -1.5], history: [0]) == 1)
    #expect(sampler.next([-1, -2.5], history: [0]) == 0)
  }

  @Test func seedsRepeat() {
    func draws(_ seed: UInt64) -> [Int32] {
      var options = SamplingOptions()
      options.temperature = 1
      options.seed = seed
      var sampler = Sampler(options)
      return (0..<50).map { _ in sampler.next(logits, history: []) }
    }
    #expect(draws(1) == draws(1))
    #expect(draws(1) != draws(2))
  }

  @Test func wrongOptionsAreNamed() {
    func problem(_ change: (inout SamplingOptions) -> Void) -> String? {
      var options = SamplingOptions()
      change(&options)
      return options.problem
    }
    #expect(problem { _ in } == nil)
    #expect(problem { $0.temperature = -1 }?.contains("temperature") == true)
    #expect(problem { $0.temperature = .nan }?.contains("temperature") == true)
    #expect(problem { $0.topK = -1 }?.contains("top-k") == true)
    #expect(problem { $0.topP = 0 }?.contains("top-p") == true)
    #expect(problem { $0.minP = 1.1 }?.contains("min-p") == true)
    #expect(problem { $0.repetitionPenalty = 0 }?.contains("repetition") == true)
  }
}
