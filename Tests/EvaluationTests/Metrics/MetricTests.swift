// Metrics against PyPI's implementations (`make_metrics.py`), and what those do not say.

import Foundation
import KindredEvaluation
import Testing

@Suite struct MetricTests {
  struct Expected: Decodable {
    struct Answer: Decodable {
      let answer: String
      let reference: String
      let f1: Double
      let exactMatch: Double
    }
    struct Summary: Decodable {
      let summary: String
      let reference: String
      let rouge1: Double
      let rouge2: Double
      let rougeL: Double
    }
    struct Correlation: Decodable {
      let first: [Double]
      let second: [Double]
      let rho: Double
    }
    let answers: [Answer]
    let summaries: [Summary]
    let correlations: [Correlation]
  }

  let expected: Expected

  init() throws {
    let url = try #require(Bundle.module.url(forResource: "Fixtures/metrics", withExtension: "json"))
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    expected = try decoder.decode(Expected.self, from: Data(contentsOf: url))
  }

  /// `torchmetrics` computes in F32.
  @Test func answersScoreAsInTorchmetrics() {
    #expect(expected.answers.count == 200)
    for pair in expected.answers {
      let f1 = answerF1(pair.answer, reference: pair.reference)
      #expect(abs(f1 - pair.f1) < 1e-6, "\(pair)")
      #expect(exactMatch(pair.answer, reference: pair.reference) == pair.exactMatch, "\(pair)")
    }
    #expect(Set(expected.answers.map(\.exactMatch)) == [0, 1])
  }

  @Test func summariesScoreAsInRouge() {
    #expect(expected.summaries.count == 200)
    for pair in expected.summaries {
      let scores = RougeScores(pair.summary, reference: pair.reference)
      #expect(abs(scores.rouge1 - pair.rouge1) < 1e-12, "\(pair)")
      #expect(abs(scores.rouge2 - pair.rouge2) < 1e-12, "\(pair)")
      #expect(abs(scores.rougeL - pair.rougeL) < 1e-12, "\(pair)")
    }
  }

  @Test func ranksCorrelateAsInSciPy() throws {
    #expect(expected.correlations.count == 7)
    for sample in expected.correlations {
      let rho = try #require(spearman(sample.first, sample.second))
      #expect(abs(rho - sample.rho) < 1e-12)
    }
  }

  @Test func someSamplesHaveNoCorrelation() {
    #expect(spearman([], []) == nil)
    #expect(spearman([1], [2]) == nil)
    #expect(spearman([1, 1, 1], [1, 2, 3]) == nil)
    #expect(spearman([1, 2, 3], [7, 7, 7]) == nil)
    #expect(spearman([1, 2, 3], [3, 2, 1]) == -1)
  }
}
