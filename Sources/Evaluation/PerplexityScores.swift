// What windows of a text score, and what that amounts to.

import Foundation
import KindredCompute
import KindredGeneration
import KindredTokenization

/// Sums over the scored tokens of one window.
package struct WindowScore: Sendable, Codable, Hashable {
  package var tokens = 0
  /// Runs of white space in the text of the scored tokens: each ends a word.
  package var spaces = 0
  /// UTF-8 bytes of the scored tokens.
  package var bytes = 0
  /// Negative log-likelihood, in nats.
  package var nll = 0.0
  /// The unmapped model's; `nil` for that model itself, as what follows.
  package var unmappedNLL: Double?
  /// KL divergence from the unmapped model's predictions, in nats.
  package var divergence: Double?
  /// Predictions whose most likely token is the unmapped model's.
  package var agreements: Int?
  /// At the end of the window.
  package var kv = KVBytes(large: 0, small: 0, unmapped: 0)
  /// What the unmapped large model holds there.
  package var unmappedKVBytes = 0
  package var seconds = 0.0

  package init() {}

  /// Adds predictions of the tokens `targets`.
  ///
  /// - Parameter reference: the unmapped model's; `nil` for that model itself.
  package mutating func add(_ predictions: [Prediction], targets: [Int32], reference: [Prediction]?) {
    for (index, target) in targets.enumerated() {
      tokens += 1
      nll -= predictions[index].logProbability(target)
      guard let unmapped = reference?[index] else { continue }
      unmappedNLL = (unmappedNLL ?? 0) - unmapped.logProbability(target)
      divergence = (divergence ?? 0) + unmapped.divergence(to: predictions[index])
      agreements = (agreements ?? 0) + (unmapped.mostLikely == predictions[index].mostLikely ? 1 : 0)
    }
  }

  /// Counts the words and bytes of the scored tokens.
  package mutating func count(_ scored: ArraySlice<Int32>, _ tokenizer: Tokenizer) {
    let content = scored.flatMap { tokenizer.bytes(of: $0) }
    bytes = content.count
    var wasSpace = false
    for scalar in String(decoding: content, as: UTF8.self).unicodeScalars {
      if scalar.isSpace, !wasSpace { spaces += 1 }
      wasSpace = scalar.isSpace
    }
  }

  /// The sums by metric, from which ``WindowScore/metrics(of:)`` makes scores.
  package var sums: [String: Double] {
    var sums = ["tokens": Double(tokens), "spaces": Double(spaces), "bytes": Double(bytes), "nll": nll]
    sums["divergence"] = divergence
    sums["agreements"] = agreements.map { Double($0) }
    return sums
  }

  /// Scores over some windows.
  ///
  /// Token perplexity is `exp(nll / tokens)`. Word and byte perplexity spread the same sum over the words and UTF-8 bytes
  /// of the scored tokens. Words are counted as lm-evaluation-harness counts those of WikiText, as the parts between runs
  /// of white space: one more than there are runs, over all scored tokens together.
  package static func metrics(of windows: [[String: Double]]) -> [String: Double] {
    func sum(_ metric: String) -> Double? {
      windows.contains { $0[metric] == nil } ? nil : windows.reduce(0) { $0 + ($1[metric] ?? 0) }
    }
    guard let nll = sum("nll"), let tokens = sum("tokens") else { return [:] }
    var metrics = ["nll": nll / tokens, "perplexity": exp(nll / tokens)]
    if let bytes = sum("bytes"), let spaces = sum("spaces"), bytes > 0 {
      metrics["word_perplexity"] = exp(nll / (spaces + 1))
      metrics["byte_perplexity"] = exp(nll / bytes)
    }
    metrics["kl_to_unmapped"] = sum("divergence").map { $0 / tokens }
    metrics["top1_agreement"] = sum("agreements").map { $0 / tokens }
    return metrics
  }
}

/// What a perplexity evaluation found. Encoded as the command line's JSON.
public struct PerplexityResult: Sendable, Encodable, Hashable {
  /// Mean negative log-likelihood of the scored tokens, in nats.
  public var nll: Double
  /// e to the power of `nll`.
  public var perplexity: Double
  /// The same sum for each word of the scored tokens (see ``tokensScored``); `nil` where nobody counted.
  public var wordPerplexity: Double?
  /// The same sum for each of their UTF-8 bytes.
  public var bytePerplexity: Double?
  /// Tokens whose likelihood counts.
  public var tokensScored: Int
  /// Windows in which they stand.
  public var windows: Int
  /// Mean KL divergence from the unmapped model's predictions to the mapped one's, in nats.
  public var klToUnmapped: Double?
  /// Share of predictions whose most likely token is the unmapped model's.
  public var top1Agreement: Double?
  /// The unmapped model's ``perplexity`` on the same tokens; `nil` where it was not run.
  public var unmappedPerplexity: Double?
  /// KV bytes at the end of a window.
  public var kv: KVBytes
  /// Share of the unmapped model's KV bytes that is saved, the small model's bytes counted; negative where these
  /// outweigh it.
  public var kvBytesSavedFraction: Double?

  package init(_ scores: [WindowScore]) {
    let metrics = WindowScore.metrics(of: scores.map(\.sums))
    let tokens = scores.reduce(0) { $0 + $1.tokens }
    let unmapped = scores.compactMap(\.unmappedNLL)
    nll = metrics["nll"] ?? .nan
    perplexity = metrics["perplexity"] ?? .nan
    wordPerplexity = metrics["word_perplexity"]
    bytePerplexity = metrics["byte_perplexity"]
    tokensScored = tokens
    windows = scores.count
    klToUnmapped = metrics["kl_to_unmapped"]
    top1Agreement = metrics["top1_agreement"]
    unmappedPerplexity = unmapped.isEmpty ? nil : exp(unmapped.reduce(0, +) / Double(tokens))
    kv = scores.last?.kv ?? KVBytes(large: 0, small: 0, unmapped: 0)
    kvBytesSavedFraction = unmapped.isEmpty ? nil : 1 - Double(kv.total) / Double(max(kv.unmapped, 1))
  }

  private enum CodingKeys: String, CodingKey {
    case nll, perplexity, windows
    case wordPerplexity = "word_perplexity"
    case bytePerplexity = "byte_perplexity"
    case tokensScored = "tokens_scored"
    case klToUnmapped = "kl_to_unmapped"
    case top1Agreement = "top1_agreement"
    case unmappedPerplexity = "unmapped_perplexity"
    case kvBytesSavedFraction = "kv_bytes_saved_fraction"
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(nll, forKey: .nll)
    try container.encode(perplexity, forKey: .perplexity)
    try container.encodeIfPresent(wordPerplexity, forKey: .wordPerplexity)
    try container.encodeIfPresent(bytePerplexity, forKey: .bytePerplexity)
    try container.encode(windows, forKey: .windows)
    try container.encode(tokensScored, forKey: .tokensScored)
    try container.encodeIfPresent(klToUnmapped, forKey: .klToUnmapped)
    try container.encodeIfPresent(top1Agreement, forKey: .top1Agreement)
    try container.encodeIfPresent(unmappedPerplexity, forKey: .unmappedPerplexity)
    try container.encodeIfPresent(kvBytesSavedFraction, forKey: .kvBytesSavedFraction)
    try kv.encode(to: encoder)
  }
}
