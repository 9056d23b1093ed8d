import Foundation
import KindredEvaluation
import Testing

@Suite struct BootstrapTests {
  let bootstrap = Bootstrap(seed: 3)

  func mean(_ values: [Double]) -> ([Int]) -> [String: Double] {
    { indices in ["mean": indices.reduce(0) { $0 + values[$1] } / Double(indices.count)] }
  }

  /// NumPy 2: `percentile([1, 2, 3, 4], 2.5)` is 1.075, at 97.5 it is 3.925.
  @Test func percentilesAreNumPys() {
    #expect(abs(Bootstrap.percentile(0.025, of: [1, 2, 3, 4]) - 1.075) < 1e-12)
    #expect(abs(Bootstrap.percentile(0.975, of: [1, 2, 3, 4]) - 3.925) < 1e-12)
    #expect(Bootstrap.percentile(0.5, of: [7]) == 7)
  }

  /// The mean of 400 zeros and ones has a standard error of 0.025, and of normal values the known one.
  @Test func intervalsOfMeansAreThoseOfTheNormalDistribution() throws {
    let coins = (0..<400).map { Double($0 % 2) }
    let found = try #require(try bootstrap.estimates(count: 400, scores: mean(coins))["mean"])
    #expect(found.value == 0.5)
    #expect(abs(found.low - (0.5 - 1.96 * 0.025)) < 0.006 && abs(found.high - (0.5 + 1.96 * 0.025)) < 0.006)
    // Uniform from 0 to 1: standard deviation 1 / √12.
    let uniform = (0..<1000).map { (Double($0) + 0.5) / 1000 }
    let wide = try #require(try bootstrap.estimates(count: 1000, scores: mean(uniform))["mean"])
    let half = 1.96 / 12.0.squareRoot() / 1000.0.squareRoot()
    #expect(abs(wide.low - (0.5 - half)) < 0.003 && abs(wide.high - (0.5 + half)) < 0.003)
  }

  @Test func theSeedDecides() throws {
    let values = (0..<30).map { Double($0 * $0 % 7) }
    let first = try bootstrap.estimates(count: 30, scores: mean(values))
    #expect(try bootstrap.estimates(count: 30, scores: mean(values)) == first)
    #expect(try Bootstrap(seed: 4).estimates(count: 30, scores: mean(values)) != first)
  }

  /// Scores vary widely, but by items: a method that is better by 0.25 everywhere is so in every draw.
  @Test func differencesArePaired() throws {
    let unmapped = (0..<50).map { ["score": Double($0)] }
    let scores = (0..<50).map { ["score": Double($0) + 0.25] }
    let found = try bootstrap.evaluate(
      scores, unmapped: unmapped, groups: (0..<50).map { [$0 < 10 ? "few" : "many"] }, summary: meanScores)
    let difference = try #require(found.differences["score"])
    #expect(abs(difference.low - 0.25) < 1e-12 && abs(difference.high - 0.25) < 1e-12)
    #expect(try #require(found.scores["score"]).low < 23)
    #expect(found.groups["few"]?["score"]?.value == 4.75)
    #expect(try bootstrap.evaluate(scores, unmapped: nil, groups: [], summary: meanScores).differences.isEmpty)
  }

  /// A correlation of few items is no number in some draws.
  @Test func whatIsNoNumberDoesNotCount() throws {
    let found = try bootstrap.estimates(count: 2) { ["share": Set($0).count == 2 ? 1 : .nan] }
    #expect(found["share"] == Estimate(value: 1, low: 1, high: 1))
    #expect(throws: TaskError.self) { try bootstrap.estimates(count: 2) { _ in ["share": .nan] } }
  }

  @Test func meansAreOverItemsThatHaveTheMetric() {
    #expect(meanScores([["a": 1, "b": 5], ["a": 2]]) == ["a": 1.5, "b": 5])
    #expect(meanScores([]) == [:])
  }
}
