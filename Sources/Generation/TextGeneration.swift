// From a prompt's tokens to text, piece by piece.

import Foundation
import KindredCompute
import KindredTokenization
import KindredTransformer

/// How much is generated, and when it ends early.
public struct GenerationOptions: Sendable {
  /// The most tokens to generate.
  public var maxTokens: Int
  /// How the next token is drawn.
  public var sampling: SamplingOptions
  /// Texts that end the generation; they are not part of the result.
  public var stops: [String]

  public init(maxTokens: Int = 256, sampling: SamplingOptions = SamplingOptions(), stops: [String] = []) {
    self.maxTokens = maxTokens
    self.sampling = sampling
    self.stops = stops
  }

  /// Says what is wrong with the options, if anything is.
  public var problem: String? {
    maxTokens < 0 ? "max tokens: expected 0 or more, found \(maxTokens)" : sampling.problem
  }
}

/// What is wrong with generation options.
public struct GenerationOptionsError: Error, Sendable, Hashable, CustomStringConvertible {
  public let description: String
}

/// Why a generation ended.
public enum StopReason: String, Sendable, Codable {
  case endOfText = "end_of_text"
  case stopString = "stop_string"
  case maxTokens = "max_tokens"
  case contextFull = "context_full"
  case cancelled
}

/// What a generation took. Encoded as the command line's JSON.
public struct GenerationStatistics: Sendable, Encodable, Hashable {
  /// Tokens of the prompt, all of them.
  public var promptTokens: Int
  /// Prompt tokens that were already in the KV cache.
  public var reusedTokens: Int
  /// Tokens that were drawn, one that ends the text left out.
  public var generatedTokens: Int
  /// Why generation ended.
  public var stopReason: StopReason
  /// Seconds from the start to the first token (TTFT); 0 where none was generated.
  public var ttftSeconds: Double
  /// Mean seconds between tokens after the first (TPOT); 0 where there is only one.
  public var tpotSeconds: Double
  /// Bytes of the caches at the end.
  public var kv: KVBytes

  private enum CodingKeys: String, CodingKey {
    case promptTokens = "prompt_tokens"
    case reusedTokens = "reused_tokens"
    case generatedTokens = "generated_tokens"
    case stopReason = "stop_reason"
    case ttftSeconds = "ttft_seconds"
    case tpotSeconds = "tpot_seconds"
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(promptTokens, forKey: .promptTokens)
    try container.encode(reusedTokens, forKey: .reusedTokens)
    try container.encode(generatedTokens, forKey: .generatedTokens)
    try container.encode(stopReason, forKey: .stopReason)
    try container.encode(ttftSeconds, forKey: .ttftSeconds)
    try container.encode(tpotSeconds, forKey: .tpotSeconds)
    try kv.encode(to: encoder)
  }
}

/// Generates text in one session.
public struct TextGeneration<B: Backend> {
  private let session: Session<B>
  private let tokenizer: Tokenizer
  private let options: GenerationOptions

  public init(session: Session<B>, tokenizer: Tokenizer, options: GenerationOptions) {
    self.session = session
    self.tokenizer = tokenizer
    self.options = options
  }

  /// Ends the reading of a prompt when the user cancels.
  private struct Cancelled: Error {}

  /// Reads a prompt and generates.
  ///
  /// What the session holds of the prompt already, from the beginning on, is not read again.
  ///
  /// - Parameters:
  ///   - prompt: at least one token.
  ///   - progress: called while the prompt is read with the number of its tokens read.
  ///   - isCancelled: asked after every pass that another one would follow.
  ///   - onText: called with text as it becomes whole characters that no stop string can swallow.
  /// - Throws: `GenerationOptionsError`, `DecoderError`, and what `onText` throws.
  public func run(
    _ prompt: [Int32], progress: (Int) -> Void = { _ in }, isCancelled: () -> Bool = { false },
    onText: (String) throws -> Void
  ) throws -> GenerationStatistics {
    if let problem = options.problem { throw GenerationOptionsError(description: problem) }
    // The last token is read again in any case: its logits are needed.
    session.truncate(to: min(zip(session.tokens, prompt).prefix { $0 == $1 }.count, prompt.count - 1))
    let reused = session.tokens.count
    let start = ContinuousClock.now
    var stop = StopReason.maxTokens
    var firstTokenAt = start
    var lastTokenAt = start
    var generated = 0
    var sampler = Sampler(options.sampling)
    var detokenizer = StreamingDetokenizer(tokenizer)
    var filter = StopFilter(options.stops)
    do {
      var logits = try session.append(Array(prompt[reused...])) { done in
        progress(reused + done)
        if isCancelled() { throw Cancelled() }
      }
      while generated < options.maxTokens {
        let token = sampler.next(logits, history: session.tokens)
        if tokenizer.endOfGenerationIDs.contains(token) {
          stop = .endOfText
          break
        }
        lastTokenAt = .now
        if generated == 0 { firstTokenAt = lastTokenAt }
        generated += 1
        try emit(filter.push(detokenizer.push(token)), to: onText)
        if filter.hasStopped {
          stop = .stopString
        } else if generated == options.maxTokens {
          break
        } else if session.tokens.count >= session.contextLength {
          stop = .contextFull
        } else if isCancelled() {
          stop = .cancelled
        }
        guard stop == .maxTokens else { break }
        logits = try session.append([token])
      }
    } catch is Cancelled {
      stop = .cancelled
    }
    try emit(filter.push(detokenizer.flush()) + filter.flush(), to: onText)
    return GenerationStatistics(
      promptTokens: prompt.count, reusedTokens: reused, generatedTokens: generated, stopReason: stop,
      ttftSeconds: (firstTokenAt - start).seconds,
      tpotSeconds: generated > 1 ? (lastTokenAt - firstTokenAt).seconds / Double(generated - 1) : 0,
      kv: session.kvBytes)
  }

  private func emit(_ text: String, to onText: (String) throws -> Void) throws {
    if !text.isEmpty { try onText(text) }
  }
}

extension Duration {
  /// The duration as a number of seconds.
  package var seconds: Double {
    Double(components.seconds) + Double(components.attoseconds) * 1e-18
  }
}
