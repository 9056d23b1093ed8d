// How fast a model reads and writes, and what memory that takes.

import Foundation
import KindredCompute
import KindredGeneration

/// What is measured.
public struct SpeedOptions: Sendable, Hashable {
  /// Tokens of each prompt, drawn at random: no prefix is shared.
  public var promptTokens = 512
  /// Tokens generated after each prompt.
  public var generatedTokens = 64
  /// Sequences that are decoded together.
  public var batch = 1
  /// Measured repetitions; one more goes before them unmeasured.
  public var repeats = 5

  public init() {}

  /// Says what is wrong with the options, if anything is.
  public var problem: String? {
    if promptTokens < 1 { return "prompt-tokens: expected at least 1, found \(promptTokens)" }
    if generatedTokens < 2 { return "generate-tokens: expected at least 2, found \(generatedTokens)" }
    if !(1...512).contains(batch) { return "batch: expected 1 to 512, found \(batch)" }
    if repeats < 1 { return "repeat: expected at least 1, found \(repeats)" }
    return nil
  }
}

/// Median and range of a figure over repetitions.
public struct MedianAndRange: Sendable, Hashable {
  public let median: Double
  public let minimum: Double
  public let maximum: Double

  /// - Precondition: `values` is not empty.
  init(_ values: [Double]) {
    let sorted = values.sorted()
    let middle = sorted.count / 2
    median = sorted.count.isMultiple(of: 2) ? (sorted[middle - 1] + sorted[middle]) / 2 : sorted[middle]
    minimum = sorted[0]
    maximum = sorted[sorted.count - 1]
  }
}

/// The figures of a speed benchmark. Encoded as the command line's JSON.
public struct SpeedResult: Sendable, Encodable {
  public var options: SpeedOptions
  /// Prompt tokens read per second, over all sequences.
  public var prefillTokensPerSecond: MedianAndRange
  /// Tokens generated per second after the first, over all sequences.
  public var decodeTokensPerSecond: MedianAndRange
  /// Seconds from the start of the first prompt to its first token.
  public var ttftSeconds: MedianAndRange
  /// Seconds from one token of a sequence to the next.
  public var tpotSeconds: MedianAndRange
  /// KV bytes at the end.
  public var kv: KVBytes
  /// The largest memory that this process has held.
  public var peakRSSBytes: Int?

  private struct Key: CodingKey {
    let stringValue: String
    var intValue: Int? { nil }
    init(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { nil }
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: Key.self)
    let measurements = [
      "prefill_tokens_per_second": prefillTokensPerSecond, "decode_tokens_per_second": decodeTokensPerSecond,
      "ttft_seconds": ttftSeconds, "tpot_seconds": tpotSeconds,
    ]
    for (name, measurement) in measurements {
      try container.encode(measurement.median, forKey: Key(stringValue: name))
      try container.encode(measurement.minimum, forKey: Key(stringValue: "\(name)_min"))
      try container.encode(measurement.maximum, forKey: Key(stringValue: "\(name)_max"))
    }
    let counts = [
      "prompt_tokens": options.promptTokens, "generated_tokens": options.generatedTokens, "batch": options.batch,
      "repeat": options.repeats,
    ]
    for (name, count) in counts { try container.encode(count, forKey: Key(stringValue: name)) }
    try container.encodeIfPresent(peakRSSBytes, forKey: Key(stringValue: "peak_rss_bytes"))
    try kv.encode(to: encoder)
  }
}

/// Measures speed.
public struct SpeedBenchmark<B: Backend> {
  private let model: LanguageModel<B>
  private let lender: Session<B>.Lender?
  private let options: SpeedOptions
  private let sessionOptions: Session<B>.Options

  public init(
    _ model: LanguageModel<B>, lender: Session<B>.Lender? = nil, options: SpeedOptions,
    sessionOptions: Session<B>.Options = .init()
  ) {
    self.model = model
    self.lender = lender
    self.options = options
    self.sessionOptions = sessionOptions
  }

  private struct Sample {
    var prefill: Double
    var decode: Double
    var ttft: Double
    var kv: KVBytes
  }

  /// Runs all repetitions.
  ///
  /// - Parameter progress: called before each repetition with its number, 0 for the unmeasured one.
  public func run(progress: (Int) -> Void = { _ in }) throws -> SpeedResult {
    var samples: [Sample] = []
    for repetition in 0...options.repeats {
      progress(repetition)
      let sample = try measure(seed: repetition)
      if repetition > 0 { samples.append(sample) }
    }
    let prompts = Double(options.promptTokens * options.batch)
    let steps = Double(options.generatedTokens - 1)
    return SpeedResult(
      options: options, prefillTokensPerSecond: MedianAndRange(samples.map { prompts / $0.prefill }),
      decodeTokensPerSecond: MedianAndRange(samples.map { steps * Double(options.batch) / $0.decode }),
      ttftSeconds: MedianAndRange(samples.map(\.ttft)), tpotSeconds: MedianAndRange(samples.map { $0.decode / steps }),
      kv: samples[samples.count - 1].kv, peakRSSBytes: Self.peakRSSBytes)
  }

  private func measure(seed: Int) throws -> Sample {
    let vocabulary = min(
      model.decoder.configuration.vocabularySize, lender?.decoder.configuration.vocabularySize ?? .max)
    var generator = SplitMix64(state: UInt64(seed))
    let prompts = (0..<options.batch).map { _ in
      (0..<options.promptTokens).map { _ in Int32.random(in: 0..<Int32(vocabulary), using: &generator) }
    }
    // Setting up a session is part of the time to first token; that is how a user meets it.
    let start = ContinuousClock.now
    let session = try Session(decoder: model.decoder, lender: lender, options: sessionOptions)
    var next: [Int32] = []
    var ttft = 0.0
    for (line, prompt) in prompts.enumerated() {
      if line > 0 { session.addSequence() }
      next.append(Sampler.mostLikely(Array(try session.append(prompt, to: line).prefix(vocabulary))))
      if line == 0 { ttft = (ContinuousClock.now - start).seconds }
    }
    let prefilled = ContinuousClock.now
    for _ in 1..<options.generatedTokens {
      let logits = try session.step(next)
      let width = logits.count / next.count
      next = next.indices.map { Sampler.mostLikely(Array(logits[$0 * width..<$0 * width + vocabulary])) }
    }
    return Sample(
      prefill: (prefilled - start).seconds, decode: (ContinuousClock.now - prefilled).seconds, ttft: ttft,
      kv: session.kvBytes)
  }

  /// What Linux reports as the high-water mark of resident memory.
  private static var peakRSSBytes: Int? {
    let status = try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)
    let line = status?.split(separator: "\n").first { $0.hasPrefix("VmHWM:") }
    return line?.split(separator: " ").compactMap { Int($0) }.first.map { $0 * 1024 }
  }
}
