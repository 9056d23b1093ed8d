// The repetitions of a speed benchmark: prompts read, tokens decoded, both timed.

import Foundation
import KindredAttention
import KindredCompute
import KindredGeneration
import KindredTransformer

/// A part of a repetition.
enum SpeedPhase: Hashable {
  /// What goes before the measurement: reading, or making up, what lies before the depth asked for.
  case preparation
  /// The prompt of the first sequence, and setting up the session.
  case firstPrompt
  case otherPrompts
  case decode
}

/// The times of a repetition.
struct SpeedSample {
  /// From the start of the first prompt to its first token, in seconds; `nil` where a depth is asked for.
  var ttft: Double?
  /// All prompts, in seconds; `nil` where a depth is asked for.
  var prefill: Double?
  /// All tokens after the first of each sequence, in seconds.
  var decode: Double
  /// KV bytes at the end.
  var kv: KVBytes
  /// Where the large model took its attention from.
  var plan: AttentionPlan
}

/// Runs repetitions for a model alone or a pair.
final class SpeedRunner<B: Backend> {
  private let model: LanguageModel<B>
  private let mapping: Session<B>.Mapping?
  private let options: SpeedOptions
  private let sessionOptions: Session<B>.Options
  /// Ids below it are in both vocabularies.
  private let vocabulary: Int
  /// The session that stands at the depth asked for; every repetition returns to it.
  private var deepSession: Session<B>?

  init(
    _ model: LanguageModel<B>, mapping: Session<B>.Mapping?, options: SpeedOptions, sessionOptions: Session<B>.Options
  ) {
    self.model = model
    self.mapping = mapping
    self.options = options
    self.sessionOptions = sessionOptions
    vocabulary = min(
      model.decoder.configuration.vocabularySize, mapping?.small?.configuration.vocabularySize ?? .max)
  }

  /// Runs one repetition.
  ///
  /// - Parameters:
  ///   - seed: decides the prompts.
  ///   - phaseEnded: called at the end of each phase, outside of what is timed.
  func measure(seed: Int, phaseEnded: (SpeedPhase) -> Void = { _ in }) throws -> SpeedSample {
    if let depth = options.depth { return try measure(depth: depth, phaseEnded: phaseEnded) }
    let limit = model.decoder.configuration.contextLength
    guard options.promptTokens <= limit else {
      throw DecoderError.contextExceeded(needed: options.promptTokens, limit: limit)
    }
    let prompts = self.prompts(count: options.batch, tokens: options.promptTokens, seed: seed)
    // Setting up a session is part of the time to first token; that is how a user meets it.
    let start = ContinuousClock.now
    let session = try Session(decoder: model.decoder, mapping: mapping, options: sessionOptions)
    var next = [mostLikely(try session.append(prompts[0]))]
    let ttft = (ContinuousClock.now - start).seconds
    phaseEnded(.firstPrompt)
    let second = ContinuousClock.now
    for prompt in prompts.dropFirst() {
      next.append(mostLikely(try session.append(prompt, to: session.addSequence())))
    }
    let prefill = ttft + (ContinuousClock.now - second).seconds
    phaseEnded(.otherPrompts)
    let decode = try self.decode(session, from: next)
    phaseEnded(.decode)
    return SpeedSample(ttft: ttft, prefill: prefill, decode: decode, kv: session.kvBytes, plan: session.plan)
  }

  private func measure(depth: Int, phaseEnded: (SpeedPhase) -> Void) throws -> SpeedSample {
    let session = if let deepSession { deepSession } else { try makeSession(depth: depth) }
    deepSession = session
    phaseEnded(.preparation)
    let decode = try self.decode(session, from: Array(repeating: 0, count: options.batch))
    let kv = session.kvBytes
    phaseEnded(.decode)
    for sequence in 0..<options.batch { session.truncate(sequence, to: depth) }
    // With near windows a session cannot go back.
    if session.tokens.count < depth { deepSession = nil }
    return SpeedSample(decode: decode, kv: kv, plan: session.plan)
  }

  /// A session whose sequences are `depth` tokens long. Where weights are random, so are the keys and values after a
  /// first pass, which establishes the map.
  private func makeSession(depth: Int) throws -> Session<B> {
    let session = try Session(decoder: model.decoder, mapping: mapping, options: sessionOptions)
    for _ in 1..<options.batch { session.addSequence() }
    let isRandom = model.tokenizer == nil
    let first = min(depth, sessionOptions.chunkRows)
    let isPadded = isRandom && first < depth
    let prompts = self.prompts(count: isPadded ? 1 : options.batch, tokens: isPadded ? first : depth, seed: 0)
    for (sequence, prompt) in prompts.enumerated() { _ = try session.append(prompt, to: sequence) }
    if isPadded { try session.pad(to: depth) }
    return session
  }

  private func prompts(count: Int, tokens: Int, seed: Int) -> [[Int32]] {
    var generator = SeededGenerator(seed: UInt64(seed))
    return (0..<count).map { _ in
      (0..<tokens).map { _ in Int32.random(in: 0..<Int32(vocabulary), using: &generator) }
    }
  }

  private func mostLikely(_ logits: some Collection<Float>) -> Int32 {
    Sampler.mostLikely(logits.prefix(vocabulary))
  }

  /// Continues all sequences greedily; returns the seconds that took.
  private func decode(_ session: Session<B>, from first: [Int32]) throws -> Double {
    var next = first
    let start = ContinuousClock.now
    for _ in 1..<options.generatedTokens {
      let logits = try session.step(next)
      let width = logits.count / next.count
      next = next.indices.map { mostLikely(logits[$0 * width..<($0 + 1) * width]) }
    }
    return (ContinuousClock.now - start).seconds
  }
}
