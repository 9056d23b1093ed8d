import Foundation
import KindredCompute
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

  /// The definition, with everything sorted: top-k, top-p, min-p, then the first candidate at which the running sum
  /// exceeds the draw.
  static func plain(_ logits: [Float], _ options: SamplingOptions, draw: Double) -> Int32 {
    let highest = logits.reduce(-Float.infinity) { $1 > $0 ? $1 : $0 }
    guard highest.isFinite else { return Sampler.mostLikely(logits) }
    var order = logits.indices.filter { logits[$0] >= highest - 30 * options.temperature }
    order.sort { logits[$0] != logits[$1] ? logits[$0] > logits[$1] : $0 < $1 }
    if options.topK > 0 { order = Array(order.prefix(options.topK)) }
    func weight(_ index: Int) -> Double { exp(Double((logits[index] - highest) / options.temperature)) }
    func sum() -> Double { order.reduce(0) { $0 + weight($1) } }
    func prefix(until isReached: (Double) -> Bool) -> Int? {
      var total = 0.0
      return order.firstIndex { index in
        total += weight(index)
        return isReached(total)
      }
    }
    if options.topP < 1 {
      let wanted = sum() * Double(options.topP)
      order = Array(order[...(prefix { $0 >= wanted } ?? order.count - 1)])
    }
    order.removeAll { weight($0) < Double(options.minP) }
    let target = draw * sum()
    return Int32(order[prefix { $0 > target } ?? order.count - 1])
  }

  /// Logits of several kinds: flat, peaked, few values (ties), falling evenly, with NaN and infinities.
  static func distributions(_ count: Int, seed: UInt64) -> [[Float]] {
    var generator = SeededGenerator(seed: seed)
    func values(_ range: ClosedRange<Float>) -> [Float] {
      (0..<count).map { _ in Float.random(in: range, using: &generator) }
    }
    let flat = values(-0.01...0.01)
    let peaked = values(0...1).map { 30 * $0 * $0 * $0 * $0 * $0 * $0 * $0 * $0 }
    let tied = values(-3...3).map { $0.rounded() }
    let falling = (0..<count).map { -0.02 * Float($0) }
    var holes = peaked
    for index in stride(from: 0, to: count, by: 3) { holes[index] = index % 2 == 0 ? .nan : -.infinity }
    var endless = flat
    endless[count / 2] = .infinity
    let nothing = Array(repeating: Float.nan, count: count)
    return [flat, peaked, tied, falling, holes, endless, nothing, nothing.map { _ in -.infinity }]
  }

  @Test(arguments: [1, 2, 63, 64, 65, 1000, 20_011])
  func choicesAreThoseOfThePlainDefinition(vocabulary: Int) {
    for (kind, logits) in Self.distributions(vocabulary, seed: UInt64(vocabulary)).enumerated() {
      for topK in [0, 1, 40, 2000, 1 << 40] {
        for (topP, minP) in [(1, 0), (0.95, 0), (0.3, 0), (1, 0.05), (0.9, 0.1), (1, 1)] as [(Float, Float)] {
          for temperature in [0.7, 1.5] as [Float] {
            var options = SamplingOptions()
            (options.temperature, options.topK, options.topP, options.minP) = (temperature, topK, topP, minP)
            options.seed = 11
            var sampler = Sampler(options)
            var generator = SeededGenerator(seed: 11)
            for _ in 0..<(vocabulary > 1000 ? 3 : 20) {
              let draw = Double.random(in: 0..<1, using: &generator)
              #expect(
                sampler.next(logits, history: []) == Self.plain(logits, options, draw: draw),
                "distribution \(kind), \(options), draw \(draw)")
            }
          }
        }
      }
    }
  }

  @Test func greedyPassesOverNaN() {
    #expect(Sampler.mostLikely([.nan, 1, .nan, 3, 3]) == 3)
    #expect(Sampler.mostLikely([.nan, .nan]) == 0)
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
