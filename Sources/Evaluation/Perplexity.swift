// Perplexity over windows of a text, of a model alone or with borrowed attention beside the same model unmapped
// (ALGORITHMS §10 of the design).
//
// Checked against `transformers` on dequantised weights (`Tests/GenerationTests/make_references.py`).

import Foundation
import KindredCompute
import KindredGeneration
import KindredTransformer

/// Which tokens of a text are scored.
public struct PerplexityOptions: Sendable, Hashable {
  /// Tokens of a window, each run from an empty cache.
  public var context = 512
  /// Tokens from the start of one window to the start of the next.
  public var stride = 512
  /// The most windows; all that fit, where `nil`.
  public var maxWindows: Int?
  /// The first token of a window whose prediction is scored, at least 1; by default those on which the paper
  /// establishes its map are left out, for every method alike.
  public var scoreFrom = 100
  /// Tokens that the models read at a time. Results do not depend on it.
  public var chunk = 128

  public init() {}

  /// Says what is wrong with the options, if anything is.
  public var problem: String? {
    if context < 2 { return "context: expected at least 2 tokens, found \(context)" }
    if stride < 1 || stride > context { return "stride: expected 1 to the context's \(context), found \(stride)" }
    if scoreFrom < 1 || scoreFrom >= context {
      return "score-from: expected 1 to \(context - 1), found \(scoreFrom)"
    }
    if let maxWindows, maxWindows < 1 { return "max-windows: expected at least 1, found \(maxWindows)" }
    if chunk < 1 { return "chunk: expected at least 1, found \(chunk)" }
    return nil
  }

  /// The windows of a text of `count` tokens. A last window that is not full is left out, unless it is the only one.
  package func windows(count: Int) -> [Range<Int>] {
    guard count > context else { return count > scoreFrom ? [0..<count] : [] }
    let starts = Swift.stride(from: 0, through: count - context, by: stride)
    return starts.prefix(maxWindows ?? .max).map { $0..<$0 + context }
  }

  /// The indices in window `number` whose tokens are scored: none twice where windows overlap.
  package func scored(inWindow number: Int, length: Int) -> Range<Int> {
    let first = number == 0 ? scoreFrom : max(scoreFrom, context - stride)
    return min(first, length)..<length
  }
}

/// What a perplexity evaluation found. Encoded as the command line's JSON.
public struct PerplexityResult: Sendable, Encodable, Hashable {
  /// Mean negative log-likelihood of the scored tokens, in nats.
  public var nll: Double
  /// e to the power of `nll`.
  public var perplexity: Double
  public var tokensScored: Int
  public var windows: Int
  /// Mean KL divergence from the unmapped model's predictions to the mapped one's, in nats.
  public var klToUnmapped: Double?
  /// Share of predictions whose most likely token is the unmapped model's.
  public var top1Agreement: Double?
  public var unmappedPerplexity: Double?
  /// KV bytes at the end of a window.
  public var kv: KVBytes
  /// Share of the unmapped model's KV bytes that is saved, the small model's bytes counted; negative where these
  /// outweigh it.
  public var kvBytesSavedFraction: Double?

  private enum CodingKeys: String, CodingKey {
    case nll, perplexity, windows
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
    try container.encode(windows, forKey: .windows)
    try container.encode(tokensScored, forKey: .tokensScored)
    try container.encodeIfPresent(klToUnmapped, forKey: .klToUnmapped)
    try container.encodeIfPresent(top1Agreement, forKey: .top1Agreement)
    try container.encodeIfPresent(unmappedPerplexity, forKey: .unmappedPerplexity)
    try container.encodeIfPresent(kvBytesSavedFraction, forKey: .kvBytesSavedFraction)
    try kv.encode(to: encoder)
  }
}

/// What is wrong with a text to evaluate.
public struct PerplexityError: Error, Sendable, CustomStringConvertible {
  public let description: String
}

/// Evaluates perplexity.
public struct PerplexityEvaluation<B: Backend> {
  private let decoder: DecoderModel<B>
  private let mappings: [Session<B>.Mapping?]
  private let options: PerplexityOptions
  private let sessionOptions: Session<B>.Options

  /// - Parameters:
  ///   - model: the model.
  ///   - mapping: where attention is borrowed, the small model and its recipe; the unmapped model is then measured,
  ///     too.
  ///   - options: what is scored.
  ///   - sessionOptions: how the models run.
  public init(
    _ model: LanguageModel<B>, mapping: Session<B>.Mapping? = nil, options: PerplexityOptions,
    sessionOptions: Session<B>.Options = .init()
  ) {
    self.init(model.decoder, mappings: [mapping], options: options, sessionOptions: sessionOptions)
  }

  /// Measures several ways of borrowing beside one run of the unmapped model. All their caches are held at once.
  package init(
    _ decoder: DecoderModel<B>, mappings: [Session<B>.Mapping?], options: PerplexityOptions,
    sessionOptions: Session<B>.Options
  ) {
    self.decoder = decoder
    self.mappings = mappings
    self.options = options
    self.sessionOptions = sessionOptions
  }

  /// Runs over the tokens of a text.
  ///
  /// - Parameters:
  ///   - tokens: the text's tokens.
  ///   - progress: called after each window with the windows done, their number, and the result so far.
  /// - Throws: `PerplexityError` for a text that is too short, `DecoderError` for a context that is too long.
  public func run(
    _ tokens: [Int32], progress: (Int, Int, PerplexityResult) -> Void = { _, _, _ in }
  ) throws -> PerplexityResult {
    try runAll(tokens) { progress($0, $1, $2[0]) }[0]
  }

  /// Runs over the tokens of a text; one result for each way of borrowing.
  package func runAll(
    _ tokens: [Int32], progress: (Int, Int, [PerplexityResult]) -> Void = { _, _, _ in }
  ) throws -> [PerplexityResult] {
    let windows = options.windows(count: tokens.count)
    var totals = Array(repeating: Totals(), count: mappings.count)
    var results: [PerplexityResult] = []
    for (number, window) in windows.enumerated() {
      let scored = options.scored(inWindow: number, length: window.count)
      let kv = try run(Array(tokens[window]), scored: scored, &totals)
      results = mappings.indices.map {
        totals[$0].result(windows: number + 1, kv: kv[$0], isMapped: mappings[$0] != nil)
      }
      progress(number + 1, windows.count, results)
    }
    guard let first = results.first, first.tokensScored > 0 else {
      throw PerplexityError(
        description: "text: expected more than \(options.scoreFrom) tokens to score, found \(tokens.count)")
    }
    return results
  }

  /// Runs one window; where attention is borrowed, the unmapped model goes along chunk by chunk, so that the
  /// predictions of a chunk are all that must be held.
  private func run(_ tokens: [Int32], scored: Range<Int>, _ totals: inout [Totals]) throws -> [KVBytes] {
    let sessions = try mappings.map { try Session(decoder: decoder, mapping: $0, options: sessionOptions) }
    let isMapped = mappings.contains { $0 != nil }
    let unmapped = isMapped ? try Session(decoder: decoder, options: sessionOptions) : nil
    for start in stride(from: 0, to: tokens.count, by: options.chunk) {
      let chunk = Array(tokens[start..<min(start + options.chunk, tokens.count)])
      // Row i predicts token i + 1.
      let wanted = (scored.lowerBound - 1..<scored.upperBound - 1).clamped(to: start..<start + chunk.count)
      guard !wanted.isEmpty else {
        for session in sessions { _ = try session.append(chunk) }
        _ = try unmapped?.append(chunk)
        continue
      }
      var reference: [Prediction] = []
      if let unmapped { reference = try predictions(of: unmapped, chunk, wanted: wanted, offset: start) }
      for (number, session) in sessions.enumerated() {
        let predictions = try predictions(of: session, chunk, wanted: wanted, offset: start)
        for (index, row) in wanted.enumerated() {
          totals[number].add(
            predictions[index], reference: reference.isEmpty ? nil : reference[index], target: tokens[row + 1])
        }
      }
    }
    return sessions.map(\.kvBytes)
  }

  private func predictions(
    of session: Session<B>, _ chunk: [Int32], wanted: Range<Int>, offset: Int
  ) throws -> [Prediction] {
    let vocabulary = decoder.configuration.vocabularySize
    var predictions: [Prediction] = []
    try session.append(chunk) { first, logits in
      for row in 0..<logits.count / vocabulary where wanted.contains(offset + first + row) {
        predictions.append(Prediction(logits: Array(logits[row * vocabulary..<(row + 1) * vocabulary])))
      }
    }
    return predictions
  }

  /// Sums over scored tokens.
  private struct Totals {
    var nll = 0.0
    var unmappedNLL = 0.0
    var divergence = 0.0
    var agreements = 0
    var count = 0

    mutating func add(_ prediction: Prediction, reference: Prediction?, target: Int32) {
      count += 1
      nll -= prediction.logProbability(target)
      guard let reference else { return }
      unmappedNLL -= reference.logProbability(target)
      divergence += reference.divergence(to: prediction)
      if reference.mostLikely == prediction.mostLikely { agreements += 1 }
    }

    func result(windows: Int, kv: KVBytes, isMapped: Bool) -> PerplexityResult {
      let tokens = Double(max(count, 1))
      return PerplexityResult(
        nll: nll / tokens, perplexity: exp(nll / tokens), tokensScored: count, windows: windows,
        klToUnmapped: isMapped ? divergence / tokens : nil,
        top1Agreement: isMapped ? Double(agreements) / tokens : nil,
        unmappedPerplexity: isMapped ? exp(unmappedNLL / tokens) : nil, kv: kv,
        kvBytesSavedFraction: isMapped ? 1 - Double(kv.total) / Double(max(kv.unmapped, 1)) : nil)
    }
  }
}

/// One row of logits as a distribution.
package struct Prediction {
  private let logits: [Float]
  private let logSumExp: Double
  package let mostLikely: Int32

  package init(logits: [Float]) {
    self.logits = logits
    mostLikely = Sampler.mostLikely(logits)
    let maximum = logits[Int(mostLikely)]
    logSumExp = Double(maximum) + log(logits.reduce(0.0) { $0 + Double(exp($1 - maximum)) })
  }

  /// Nats.
  package func logProbability(_ token: Int32) -> Double { Double(logits[Int(token)]) - logSumExp }

  /// KL(self ‖ other) in nats.
  package func divergence(to other: Prediction) -> Double {
    var sum = 0.0
    for (own, others) in zip(logits, other.logits) {
      let logProbability = Float(Double(own) - logSumExp)
      sum += Double(exp(logProbability)) * (Double(logProbability) - (Double(others) - other.logSumExp))
    }
    return sum
  }
}
