// Choosing the next token from logits.
//
// Order as in PyPI `transformers`: repetition penalty, temperature, top-k, top-p, min-p; then one draw.

import Foundation

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
public struct Sampler: Sendable {
  private let options: SamplingOptions
  private var generator: SplitMix64

  public init(_ options: SamplingOptions) {
    self.options = options
    generator = SplitMix64(state: options.seed ?? .random(in: .min ... .max))
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
    let candidates = candidates(logits)
    let total = candidates.reduce(0) { $0 + $1.weight }
    var remaining = Double.random(in: 0..<1, using: &generator) * total
    for candidate in candidates {
      remaining -= candidate.weight
      if remaining < 0 { return candidate.token }
    }
    return candidates.last?.token ?? Self.mostLikely(logits)
  }

  /// The first token of the highest logit.
  public static func mostLikely(_ logits: [Float]) -> Int32 {
    logits.withUnsafeBufferPointer { logits in
      var best = 0
      for index in logits.indices where logits[index] > logits[best] { best = index }
      return Int32(best)
    }
  }

  private func penalize(_ logits: inout [Float], history: some Sequence<Int32>) {
    guard options.repetitionPenalty != 1 else { return }
    for token in Set(history) where logits.indices.contains(Int(token)) {
      let logit = logits[Int(token)]
      logits[Int(token)] = logit > 0 ? logit / options.repetitionPenalty : logit * options.repetitionPenalty
    }
  }

  /// The tokens that remain, most likely first, with unnormalised probabilities (1 for the first).
  private func candidates(_ logits: [Float]) -> [(token: Int32, weight: Double)] {
    let best = logits[Int(Self.mostLikely(logits))]
    guard best.isFinite else { return [] }
    // Below e⁻³⁰ of the best a token is never drawn; leaving it out keeps the sort short.
    let floor = best - 30 * options.temperature
    var order = logits.indices.filter { logits[$0] >= floor }
    order.sort { logits[$0] > logits[$1] || (logits[$0] == logits[$1] && $0 < $1) }
    if options.topK > 0 { order = Array(order.prefix(options.topK)) }
    var candidates = order.map { index in
      (token: Int32(index), weight: exp(Double((logits[index] - best) / options.temperature)))
    }
    if options.topP < 1 {
      let wanted = candidates.reduce(0) { $0 + $1.weight } * Double(options.topP)
      var sum = 0.0
      let count = candidates.firstIndex { candidate in
        sum += candidate.weight
        return sum >= wanted
      }
      candidates = Array(candidates.prefix((count ?? candidates.count - 1) + 1))
    }
    return candidates.filter { $0.weight >= Double(options.minP) }
  }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, seedable, the same on every platform.
package struct SplitMix64: RandomNumberGenerator {
  private var state: UInt64

  package init(state: UInt64) { self.state = state }

  package mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
