// Perplexity over windows of a text, of a model alone or with borrowed attention beside the same model unmapped.
//
// Checked against `transformers` on dequantised weights (`Tests/GenerationTests/make_references.py`).

import Foundation
import KindredCompute
import KindredGeneration
import KindredTokenization
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
  /// Tokens that the models read at a time. Results depend on it by the rounding of activations alone (`Backend`).
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

/// What is wrong with a text to evaluate.
public struct PerplexityError: Error, Sendable, CustomStringConvertible {
  public let description: String
}

/// Evaluates perplexity.
public struct PerplexityEvaluation<B: Backend> {
  private let decoder: DecoderModel<B>
  private let methods: [RunnableMethod<B>]
  private let options: PerplexityOptions
  private let sessionOptions: Session<B>.Options

  /// - Parameters:
  ///   - decoder: the unmapped model, which runs beside the methods.
  ///   - methods: what is measured.
  ///   - options: what is scored.
  ///   - sessionOptions: how the models run.
  public init(
    _ decoder: DecoderModel<B>, methods: [RunnableMethod<B>], options: PerplexityOptions,
    sessionOptions: Session<B>.Options = .init()
  ) {
    self.decoder = decoder
    self.methods = methods
    self.options = options
    self.sessionOptions = sessionOptions
  }

  /// Measures several ways of borrowing beside one run of the unmapped model. All their caches are held at once.
  package init(
    _ decoder: DecoderModel<B>, mappings: [Session<B>.Mapping?], options: PerplexityOptions,
    sessionOptions: Session<B>.Options
  ) {
    let methods = mappings.enumerated().map {
      RunnableMethod(name: "\($0)", decoder: decoder, mapping: $1, identity: "\($0)")
    }
    self.init(decoder, methods: methods, options: options, sessionOptions: sessionOptions)
  }

  /// Runs over the tokens of a text; one result for each method.
  ///
  /// - Parameters:
  ///   - tokens: the text's tokens.
  ///   - progress: called after each window with the windows done, their number, and the results so far.
  /// - Throws: `PerplexityError` for a text that is too short, `DecoderError` for a context that is too long.
  package func runAll(
    _ tokens: [Int32], progress: (Int, Int, [PerplexityResult]) -> Void = { _, _, _ in }
  ) throws -> [PerplexityResult] {
    try run(tokens, tokenizer: nil, journal: nil) { progress($0, $1, $2.map { PerplexityResult($0) }) }
      .map { PerplexityResult($0) }
  }

  /// Runs over the tokens of a text; the scores of each window, by method.
  ///
  /// - Parameters:
  ///   - tokens: the text's tokens.
  ///   - tokenizer: what gives them their text, whose words and bytes are counted.
  ///   - journal: where scores are kept, and not measured again.
  ///   - progress: called after each window with the windows done, their number, and the scores so far.
  func run(
    _ tokens: [Int32], tokenizer: Tokenizer?, journal: ResponseJournal<WindowScore>?,
    progress: (Int, Int, [[WindowScore]]) throws -> Void
  ) throws -> [[WindowScore]] {
    let windows = options.windows(count: tokens.count)
    guard let first = windows.first, !options.scored(inWindow: 0, length: first.count).isEmpty else {
      throw PerplexityError(
        description: "text: expected more than \(options.scoreFrom) tokens to score, found \(tokens.count)")
    }
    var scores = Array(repeating: [WindowScore](), count: methods.count)
    for (number, window) in windows.enumerated() {
      let scored = options.scored(inWindow: number, length: window.count)
      let item = "window \(number)"
      var found = methods.map { journal?.answer(of: $0.identity, to: item)?.answer }
      let missing = found.indices.filter { found[$0] == nil }
      if !missing.isEmpty {
        let measured = try measure(missing.map { methods[$0] }, Array(tokens[window]), scored: scored, tokenizer)
        for (index, score) in zip(missing, measured) {
          guard score.nll.isFinite else {
            throw PerplexityError(
              description: "window \(number), \(methods[index].name): expected finite log-likelihoods, found "
                + "\(score.nll): weights that are no numbers?")
          }
          found[index] = score
          try journal?.note(
            JournaledAnswer(
              method: methods[index].identity, item: item, answer: score, seconds: score.seconds,
              kvBytes: score.kv.total, unmappedKVBytes: score.unmappedKVBytes))
        }
      }
      for (index, score) in found.enumerated() { if let score { scores[index].append(score) } }
      try progress(number + 1, windows.count, scores)
    }
    return scores
  }

  /// Runs one window; the unmapped model goes along chunk by chunk, so that the predictions of a chunk are all that must
  /// be held.
  private func measure(
    _ methods: [RunnableMethod<B>], _ tokens: [Int32], scored: Range<Int>, _ tokenizer: Tokenizer?
  ) throws -> [WindowScore] {
    let reference = WindowReader(try Session(decoder: decoder, options: sessionOptions))
    let runs = try methods.map { method in
      // The unmapped model itself need not run twice.
      method.isUnmapped
        ? reference
        : WindowReader(try Session(decoder: method.decoder, mapping: method.mapping, options: sessionOptions))
    }
    for start in stride(from: 0, to: tokens.count, by: options.chunk) {
      let chunk = Array(tokens[start..<min(start + options.chunk, tokens.count)])
      // Row i predicts token i + 1.
      let wanted = (scored.lowerBound - 1..<scored.upperBound - 1).clamped(to: start..<start + chunk.count)
      let targets = wanted.map { tokens[$0 + 1] }
      let unmapped = try reference.read(chunk, wanted: wanted, offset: start)
      reference.score.add(unmapped, targets: targets, reference: nil)
      for run in runs where run !== reference {
        let predictions = try run.read(chunk, wanted: wanted, offset: start)
        run.score.add(predictions, targets: targets, reference: unmapped)
      }
    }
    return runs.map { run in
      var score = run.score
      score.kv = run.session.kvBytes
      score.unmappedKVBytes = reference.session.kvBytes.total
      if let tokenizer { score.count(tokens[scored], tokenizer) }
      return score
    }
  }
}

/// A session that reads a window, and what it scored there.
private final class WindowReader<B: Backend> {
  let session: Session<B>
  var score = WindowScore()

  init(_ session: Session<B>) { self.session = session }

  /// Reads a chunk, and returns what is predicted after the tokens `wanted` of the window.
  func read(_ chunk: [Int32], wanted: Range<Int>, offset: Int) throws -> [Prediction] {
    let start = ContinuousClock.now
    defer { score.seconds += (ContinuousClock.now - start).seconds }
    guard !wanted.isEmpty else {
      _ = try session.append(chunk)
      return []
    }
    var predictions: [Prediction] = []
    try session.append(chunk) { first, logits in
      let vocabulary = session.vocabularySize
      for row in 0..<logits.count / vocabulary where wanted.contains(offset + first + row) {
        predictions.append(Prediction(logits: Array(logits[row * vocabulary..<(row + 1) * vocabulary])))
      }
    }
    return predictions
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
