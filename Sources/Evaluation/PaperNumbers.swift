// The numbers of IAM's paper (Zhao, Li, Zhao, ACL 2025, arXiv 2507.11953), in one place.

import Foundation
import KindredAttentionMapping

/// What IAM's paper reports, of Qwen2-72B unless said otherwise.
enum PaperNumbers {
  /// Table 1: log-perplexity on WikiText-2 with the latter half of the layers mapped to Qwen2-0.5B and to Qwen2-7B.
  static let measures: [SimilarityMeasure: (tiny: Double, seven: Double)] = [
    .cosine: (2.577, 2.414), .pearson: (4.976, 5.376), .minkowski1: (2.589, 2.427), .minkowski2: (2.878, 2.514),
    .cosineNorm: (2.562, 2.421),
  ]
  /// Table 1: log-perplexity of the unmapped model.
  static let unmappedLogPerplexity = 2.136

  /// Table 2: MMLU and 1 / log-perplexity on WikiText-2 with one of ten blocks of eight layers mapped, block 0 to 9.
  static let blocks: [(mmlu: Double, inverse: Double)] = [
    (0.567, 0.218), (0.544, 0.288), (0.816, 0.326), (0.802, 0.350), (0.819, 0.364), (0.784, 0.374), (0.678, 0.383),
    (0.741, 0.388), (0.830, 0.395), (0.815, 0.403),
  ]
  /// The correlation between the two columns of Table 2.
  static var blockCorrelation: Double { correlation(blocks.map(\.mmlu), blocks.map(\.inverse)) ?? .nan }

  /// Two figures of Table 3: without and with mapping.
  struct Change: Sendable, Hashable {
    var unmapped: Double
    var mapped: Double

    /// How many times as much the unmapped model takes.
    var gain: Double { unmapped / mapped }
  }

  /// A row of Table 3: Qwen2-72B and Qwen2-0.5B, half of the layers mapped.
  struct Efficiency: Sendable, Hashable {
    var sequences: Int
    var promptTokens: Int
    var generatedTokens: Int
    /// As printed, in GB.
    var kvGigabytes: Change
    /// Seconds.
    var tpot: Change
    /// Seconds until every sequence has its first token: only so does the printed throughput follow.
    var ttft: Change
    /// Prompt and generated tokens a second.
    var throughput: Change

    /// Prompt and generated tokens of all sequences.
    var tokens: Int { sequences * (promptTokens + generatedTokens) }
  }

  /// Table 3, by the scenario's name here.
  static let efficiency: [String: Efficiency] = [
    "paper-multi-user": Efficiency(
      sequences: 64, promptTokens: 512, generatedTokens: 512, kvGigabytes: Change(unmapped: 158.7, mapped: 124.2),
      tpot: Change(unmapped: 0.196, mapped: 0.176), ttft: Change(unmapped: 2.67, mapped: 2.39),
      throughput: Change(unmapped: 636, mapped: 708)),
    "paper-long-context": Efficiency(
      sequences: 4, promptTokens: 8192, generatedTokens: 512, kvGigabytes: Change(unmapped: 187.4, mapped: 143.1),
      tpot: Change(unmapped: 0.216, mapped: 0.197), ttft: Change(unmapped: 6.72, mapped: 5.74),
      throughput: Change(unmapped: 297, mapped: 326)),
  ]

  /// KV bytes of Qwen2-72B a token in 16 bits: 80 layers, keys and values of 128 elements for each of 8 groups of query
  /// heads.
  static let groupedBytes = Double(80 * 2 * 8 * 128 * 2)
  /// The same for each of its 64 query heads.
  static let expandedBytes = groupedBytes * 8

  /// Table 4: perplexity by the share of layers mapped; the printed labels of its rows contradict the text and are
  /// taken as swapped.
  static let untunedPerplexity: [Double: Double] = [0.1: 8.53, 0.2: 8.84, 0.3: 9.18, 0.4: 10.34, 0.5: 11.99]
  /// Table 4: perplexity of the unmapped model.
  static let unmappedPerplexity = 8.47

  /// Perplexity without tuning as a factor on the unmapped model's; `nil` at shares that Table 4 has not.
  static func untunedFactor(ratio: Double) -> Double? {
    untunedPerplexity.first { abs($0.key - ratio) < 1e-9 }.map { $0.value / unmappedPerplexity }
  }

  /// Mean cosine of a head with its most alike one: 7B to 72B, and between models of different series.
  static let bestCosine = (sameSeries: 0.954, otherSeries: 0.568)
}
