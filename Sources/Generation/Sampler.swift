// Choosing the next token from logits.
//
// Order as in PyPI `transformers`: repetition penalty, temperature, top-k, top-p, min-p; then one draw.

import Foundation
import KindredCompute

/// How the next token is chosen.
public struct SamplingOptions: Sendable, Hashable {
  /// What logits are divided by; 0 means greedy: the most likely token.
  public var temperature: Float = 0
  /// Only this many most likely tokens; 0 for all.
  public var topK = 0
  /// Only the fewest most likely tokens that together have this probability; 1 for all.
  public var topP: Float = 1
  /// Only tokens at least this many times as likely as the most likely one; 0 for all.
  public var minP: Float = 0
  /// What positive logits of tokens that occurred are divided by, and negative ones multiplied by (Keskar et al.
  /// 2019); 1 for none.
  public var repetitionPenalty: Float = 1
  /// The seed of the draws; a random one where `nil`.
  public var seed: UInt64?

  public init() {}

  /// Says what is wrong with the options, if anything is.
  public var problem: String? {
    if !(temperature >= 0 && temperature.isFinite) { return "temperature: expected 0 or more, found \(temperature)" }
    if topK < 0 { return "top-k: expected 0 or more, found \(topK)" }
    if !(topP > 0 && topP <= 1) { return "top-p: expected more than 0 and at most 1, found \(topP)" }
    if !(minP >= 0 && minP <= 1) { return "min-p: expected 0 to 1, found \(minP)" }
    if !(repetitionPenalty > 0 && repetitionPenalty.isFinite) {
      return "repetition penalty: expected more than 0, found \(repetitionPenalty)"
    }
    return nil
  }
}

/// Draws tokens; the same seed and the same logits give the same tokens.
///
/// Candidates are ranked by logit, ties by token, and weigh `exp((logit − highest) / temperature)` in double precision;
/// those below e⁻³⁰ are no candidates, nor are tokens whose logit is NaN. Top-p keeps the shortest prefix whose weight
/// reaches its share of the sum, a draw `u` takes the first candidate at which the running sum exceeds `u` times the
/// sum. Only as many are ranked as the choice needs (see ``Ranking``).
public struct Sampler: Sendable {
  private let options: SamplingOptions
  private var generator: SeededGenerator

  public init(_ options: SamplingOptions) {
    self.options = options
    generator = SeededGenerator(seed: options.seed ?? .random(in: .min ... .max))
  }

  /// The next token.
  ///
  /// - Parameters:
  ///   - logits: `[vocabulary]`.
  ///   - history: the tokens that the repetition penalty looks at.
  public mutating func next(_ logits: [Float], history: some Sequence<Int32>) -> Int32 {
    var logits = logits
    penalize(&logits, history: history)
    guard options.temperature > 0 else { return Self.mostLikely(logits) }
    let draw = Double.random(in: 0..<1, using: &generator)
    return logits.withUnsafeBufferPointer { choose(Ranking($0, temperature: options.temperature), draw: draw) }
      ?? Self.mostLikely(logits)
  }

  /// The first token of the highest logit; the first of all where there is none but NaN.
  public static func mostLikely(_ logits: some Collection<Float>) -> Int32 {
    logits.withContiguousStorageIfAvailable(firstHighest) ?? Array(logits).withUnsafeBufferPointer(firstHighest)
  }

  private static func firstHighest(_ logits: UnsafeBufferPointer<Float>) -> Int32 {
    var best = logits.startIndex..<logits.startIndex
    var highest = -Float.infinity
    for block in LogitBlocks.ranges(of: logits.count) {
      let maximum = LogitBlocks.maximum(logits[block])
      if maximum > highest { (best, highest) = (block, maximum) }
    }
    return Int32(logits[best].firstIndex(of: highest) ?? 0)
  }

  private func penalize(_ logits: inout [Float], history: some Sequence<Int32>) {
    guard options.repetitionPenalty != 1 else { return }
    for token in Set(history) where logits.indices.contains(Int(token)) {
      let logit = logits[Int(token)]
      logits[Int(token)] = logit > 0 ? logit / options.repetitionPenalty : logit * options.repetitionPenalty
    }
  }

  /// Candidates that are ranked first, before all of them are, where it is not known how many a choice needs.
  private static let firstRanked = [64, 1024]

  private func choose(_ ranking: Ranking, draw: Double) -> Int32? {
    guard ranking.highest.isFinite else { return nil }
    if options.topK == 0, options.topP < 1 || options.minP == 0 {
      let total = ranking.estimatedTotal()
      for count in Self.firstRanked {
        if let token = choose(ranking.first(count), total: total, draw: draw) { return token }
      }
      // Tokens of less than the mean of what lies behind the choice are behind it, all of them together.
      let share = options.topP < 1 ? Double(options.topP) : draw
      let leastWeight = Float((1 - share) * total.lowerBound / Double(ranking.count))
      if let token = choose(ranking.first(.max, leastWeight: leastWeight), total: total, draw: draw) { return token }
    }
    // What min-p will not keep need not be ranked, unless top-p counts it.
    let leastWeight = options.topP == 1 ? options.minP : 0
    let candidates = ranking.first(options.topK == 0 ? .max : options.topK, leastWeight: leastWeight)
    let total = candidates.reduce(0) { $0 + $1.weight }
    return choose(candidates, total: total...total, draw: draw)
  }

  /// Draws among the candidates that top-p and min-p leave; `nil` where more of them, or their exact sum, decide.
  ///
  /// - Parameters:
  ///   - candidates: the most likely ones, of which top-k leaves all.
  ///   - total: the bounds of the weight of all that top-k leaves.
  ///   - draw: a number below 1.
  private func choose(_ candidates: [Candidate], total: ClosedRange<Double>, draw: Double) -> Int32? {
    var candidates = candidates[...]
    var total = total
    func sum() -> Double { candidates.reduce(0) { $0 + $1.weight } }
    if options.topP < 1 {
      let share = Double(options.topP)
      var weight = 0.0
      let last = candidates.firstIndex { candidate in
        weight += candidate.weight
        return weight >= total.lowerBound * share
      }
      if let last, weight >= total.upperBound * share {
        candidates = candidates[...last]
      } else if total.lowerBound < total.upperBound {
        return nil
      }
      total = sum()...sum()
    }
    if options.minP > 0 {
      candidates = candidates.prefix { $0.weight >= Double(options.minP) }
      total = sum()...sum()
    }
    var weight = 0.0
    let chosen = candidates.first { candidate in
      weight += candidate.weight
      return weight > draw * total.lowerBound
    }
    if let chosen, weight > draw * total.upperBound { return chosen.token }
    return total.lowerBound == total.upperBound ? candidates.last?.token : nil
  }
}

/// A token that may be drawn.
private struct Candidate {
  var token: Int32
  /// Its probability as a multiple of the most likely one's.
  var weight: Double
}

/// The vocabulary in blocks, whose maxima stand for them.
private enum LogitBlocks {
  /// Logits of a block; the last one may have fewer.
  static let size = 64

  /// The tokens of each block.
  static func ranges(of vocabulary: Int) -> some Sequence<Range<Int>> {
    stride(from: 0, to: vocabulary, by: size).lazy.map { $0..<min($0 + size, vocabulary) }
  }

  /// The largest value that is not NaN; -∞ where there is none.
  static func maximum(_ values: Slice<UnsafeBufferPointer<Float>>) -> Float {
    let values = UnsafeRawBufferPointer(UnsafeBufferPointer(rebasing: values))
    let vector = MemoryLayout<SIMD16<Float>>.size
    var largest = SIMD16<Float>(repeating: -.infinity)
    var offset = 0
    while offset + vector <= values.count {
      let next = values.loadUnaligned(fromByteOffset: offset, as: SIMD16<Float>.self)
      largest.replace(with: next, where: next .> largest)
      offset += vector
    }
    var maximum = largest.max()
    while offset < values.count {
      let next = values.loadUnaligned(fromByteOffset: offset, as: Float.self)
      if next > maximum { maximum = next }
      offset += MemoryLayout<Float>.size
    }
    return maximum
  }
}

/// The order of one step's logits, as far as it is asked for.
///
/// Only the maxima of blocks are ordered: `k` blocks whose maxima reach a bound hold `k` candidates that do, so no
/// other block and no smaller logit is among the first `k`.
private struct Ranking {
  /// Relative weight below which no token is drawn, as a logarithm.
  private static let leastLogarithm: Float = -30

  /// The highest logit; -∞ where there is none but NaN.
  let highest: Float
  private let logits: UnsafeBufferPointer<Float>
  private let temperature: Float
  /// Of each block.
  private let maxima: [Float]
  /// The same, highest first.
  private let sortedMaxima: [Float]

  init(_ logits: UnsafeBufferPointer<Float>, temperature: Float) {
    self.logits = logits
    self.temperature = temperature
    maxima = LogitBlocks.ranges(of: logits.count).map { LogitBlocks.maximum(logits[$0]) }
    sortedMaxima = maxima.sorted(by: >)
    highest = sortedMaxima.first ?? -.infinity
  }

  /// Tokens of the vocabulary.
  var count: Int { logits.count }

  /// The first `count` candidates and those after them that cost nothing to know, or all.
  ///
  /// - Parameter leastWeight: weight below which candidates need not be ranked.
  func first(_ count: Int, leastWeight: Float = 0) -> [Candidate] {
    // A little lower than what the weight asks for, whose comparison is in double precision.
    let least = max(Self.leastLogarithm, log(leastWeight) - 1e-3)
    var bound = highest + least * temperature
    if count <= sortedMaxima.count { bound = max(bound, sortedMaxima[count - 1]) }
    // In the order of these numbers logits fall and tokens rise.
    var order: [UInt64] = []
    for (block, maximum) in zip(LogitBlocks.ranges(of: logits.count), maxima) where maximum >= bound {
      for token in block where logits[token] >= bound {
        order.append(UInt64(~Self.rank(logits[token])) << 32 | UInt64(token))
      }
    }
    order.sort()
    return order.prefix(count).map { entry in
      let token = Int(entry & 0xFFFF_FFFF)
      return Candidate(token: Int32(token), weight: exp(Double((logits[token] - highest) / temperature)))
    }
  }

  /// A number that rises with `x`, the same for both zeros.
  private static func rank(_ x: Float) -> UInt32 {
    let bits = (x + 0).bitPattern
    return bits >> 31 == 0 ? bits | 1 << 31 : ~bits
  }

  /// Bounds of the weight of all candidates.
  func estimatedTotal() -> ClosedRange<Double> {
    let sum = VectorMath.sumOfExponentials(logits, minus: highest, dividedBy: temperature)
    // The kernel's error, and tokens too unlikely to be candidates.
    let error = 2e-6 + Double(logits.count) * exp(Double(Self.leastLogarithm))
    return sum * (1 - error)...sum * (1 + error)
  }
}
