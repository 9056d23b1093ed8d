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
  /// Decode after so many tokens of each sequence instead of after prompts: they are read once, and every repetition
  /// returns to them. Models of random weights get random keys and values there.
  public var depth: Int?
  /// Measured repetitions; one more goes before them unmeasured.
  public var repeats = 5

  public init() {}

  /// A short run of the same kind, which brings weights into memory and wakes threads as a long one does.
  ///
  /// - Parameter unmappedTokens: those that must precede a map.
  func shortened(unmappedTokens: Int) -> SpeedOptions {
    var short = self
    short.batch = 1
    short.promptTokens = min(promptTokens, unmappedTokens + 32)
    short.generatedTokens = 2
    return short
  }

  /// Says what is wrong with the options, if anything is.
  public var problem: String? {
    let sizes = [
      sizeProblem("prompt-tokens", promptTokens), sizeProblem("generate-tokens", generatedTokens, atLeast: 2),
      depth.flatMap { sizeProblem("depth", $0) },
    ]
    if let problem = sizes.compactMap(\.self).first { return problem }
    if !(1...512).contains(batch) { return "batch: expected 1 to 512, found \(batch)" }
    if repeats < 1 { return "repeat: expected at least 1, found \(repeats)" }
    return nil
  }
}

extension SpeedOptions: Encodable {
  private enum CodingKeys: String, CodingKey {
    case batch, depth
    case promptTokens = "prompt_tokens"
    case generatedTokens = "generated_tokens"
    case repeats = "repeat"
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    if depth == nil { try container.encode(promptTokens, forKey: .promptTokens) }
    try container.encodeIfPresent(depth, forKey: .depth)
    try container.encode(generatedTokens, forKey: .generatedTokens)
    try container.encode(batch, forKey: .batch)
    try container.encode(repeats, forKey: .repeats)
  }
}

/// Median and range of a figure over repetitions.
public struct MedianAndRange: Sendable, Hashable, Encodable {
  /// The mean of the two in the middle where their number is even.
  public let median: Double
  /// The smallest.
  public let minimum: Double
  /// The largest.
  public let maximum: Double

  init(median: Double, minimum: Double, maximum: Double) {
    self.median = median
    self.minimum = minimum
    self.maximum = maximum
  }

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
  /// What was measured.
  public var options: SpeedOptions
  /// Prompt tokens read per second, over all sequences; `nil` where a depth is asked for.
  public var prefillTokensPerSecond: MedianAndRange?
  /// Tokens generated per second after the first, over all sequences.
  public var decodeTokensPerSecond: MedianAndRange
  /// Seconds from the start of the first prompt to its first token; `nil` where a depth is asked for.
  public var ttftSeconds: MedianAndRange?
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
    for case (let name, let measurement?) in measurements {
      try container.encode(measurement.median, forKey: Key(stringValue: name))
      try container.encode(measurement.minimum, forKey: Key(stringValue: "\(name)_min"))
      try container.encode(measurement.maximum, forKey: Key(stringValue: "\(name)_max"))
    }
    try options.encode(to: encoder)
    try container.encodeIfPresent(peakRSSBytes, forKey: Key(stringValue: "peak_rss_bytes"))
    try kv.encode(to: encoder)
  }
}

extension SpeedResult {
  /// - Precondition: `samples` is not empty.
  init(_ samples: [SpeedSample], options: SpeedOptions) {
    let prompts = Double(options.promptTokens * options.batch)
    let steps = Double(options.generatedTokens - 1)
    func figures(_ value: (SpeedSample) -> Double?) -> MedianAndRange? {
      let values = samples.compactMap(value)
      return values.isEmpty ? nil : MedianAndRange(values)
    }
    self.init(
      options: options, prefillTokensPerSecond: figures { $0.prefill.map { prompts / $0 } },
      decodeTokensPerSecond: MedianAndRange(samples.map { steps * Double(options.batch) / $0.decode }),
      ttftSeconds: figures(\.ttft), tpotSeconds: MedianAndRange(samples.map { $0.decode / steps }),
      kv: samples[samples.count - 1].kv, peakRSSBytes: PeakMemory.bytes)
  }
}

/// The most resident memory that this process has held, as Linux counts it.
enum PeakMemory {
  /// In bytes; `nil` where the system does not tell.
  static var bytes: Int? {
    let status = try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)
    let line = status?.split(separator: "\n").first { $0.hasPrefix("VmHWM:") }
    return line?.split(separator: " ").compactMap { Int($0) }.first.map { $0 * 1024 }
  }

  /// Begins anew from what is held now; without effect where the system does not allow it.
  static func reset() {
    guard let file = FileHandle(forWritingAtPath: "/proc/self/clear_refs") else { return }
    try? file.write(contentsOf: Data("5".utf8))
  }
}

/// Measures speed.
public struct SpeedBenchmark<B: Backend> {
  private let runner: SpeedRunner<B>
  private let options: SpeedOptions

  public init(
    _ model: LanguageModel<B>, mapping: Session<B>.Mapping? = nil, options: SpeedOptions,
    sessionOptions: Session<B>.Options = .init()
  ) {
    runner = SpeedRunner(model, mapping: mapping, options: options, sessionOptions: sessionOptions)
    self.options = options
  }

  /// Runs all repetitions.
  ///
  /// - Parameter progress: called before each repetition with its number, 0 for the unmeasured one.
  public func run(progress: (Int) -> Void = { _ in }) throws -> SpeedResult {
    var samples: [SpeedSample] = []
    for repetition in 0...options.repeats {
      progress(repetition)
      let sample = try runner.measure(seed: repetition)
      if repetition > 0 { samples.append(sample) }
    }
    return SpeedResult(samples, options: options)
  }
}
