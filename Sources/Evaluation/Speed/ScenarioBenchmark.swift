// A scenario run by the large model alone and by the pair, by turns (IAM's Table 3).
//
// Times come from the runner of `kindred bench --explain`: the small model's part of the pair's time is known, and counts
// at the share of the large model's layers that is present, as random weights of few layers stand for a model of many.

import Foundation
import KindredAttention
import KindredCompute
import KindredGeneration

/// What a scenario takes without and with borrowed attention.
public struct ScenarioResult: Sendable, Hashable {
  /// Medians over repetitions.
  public struct Figures: Sendable, Hashable, Encodable {
    /// Seconds from the start of the first prompt until every sequence has its first token, as in the paper.
    public var ttftSeconds: MedianAndRange
    /// Seconds until the first sequence has its first token.
    public var firstTTFTSeconds: MedianAndRange
    /// Seconds from one token of a sequence to the next.
    public var tpotSeconds: MedianAndRange
    /// What of ``ttftSeconds`` the small model takes, at the share at which it counts: a median.
    public var smallTTFTSeconds: Double
    /// What it takes of ``tpotSeconds``.
    public var smallTPOTSeconds: Double
    /// Prompt and generated tokens of all sequences a second, over the whole run.
    public var tokensPerSecond: MedianAndRange
    /// Generated tokens of all sequences a second, over the whole run.
    public var generatedTokensPerSecond: MedianAndRange
    /// KV bytes at the end, of the layers that are present.
    public var kvBytesLarge: Int
    /// KV bytes of the small model.
    public var kvBytesSmall: Int
    /// The most memory that the process held, with the weights of both models; `nil` where the system does not tell.
    public var peakRSSBytes: Int?

    private enum CodingKeys: String, CodingKey {
      case ttftSeconds = "ttft_seconds"
      case firstTTFTSeconds = "first_ttft_seconds"
      case tpotSeconds = "tpot_seconds"
      case smallTTFTSeconds = "small_ttft_seconds"
      case smallTPOTSeconds = "small_tpot_seconds"
      case tokensPerSecond = "tokens_per_second"
      case generatedTokensPerSecond = "generated_tokens_per_second"
      case kvBytesLarge = "kv_bytes_large"
      case kvBytesSmall = "kv_bytes_small"
      case peakRSSBytes = "peak_rss_bytes"
    }
  }

  /// How many times as much the unmapped model takes: the median and range over pairs of runs.
  public struct Gain: Sendable, Hashable, Encodable {
    /// Of the time to first token.
    public var ttft: MedianAndRange
    /// Of the time per token.
    public var tpot: MedianAndRange
    /// How many times as many tokens a second the pair handles.
    public var throughput: MedianAndRange
  }

  /// What was run, at the size at which it ran.
  public var scenario: Scenario
  /// Runs of each, from which medians come.
  public var repeats: Int
  /// Layers of the large model that are present.
  public var layerCount: Int
  /// Layers that its published shape has.
  public var publishedLayerCount: Int
  /// Layers of the large model that borrow.
  public var mappedLayerCount: Int
  /// The large model alone.
  public var unmapped: Figures
  /// `nil` without a plan or small model.
  public var mapped: Figures?
  /// Of the pair over the large model alone.
  public var gain: Gain?

  /// The share at which the small model's time is counted.
  public var smallShare: Double { Double(layerCount) / Double(publishedLayerCount) }

  /// KV bytes of both models with all of the large model's published layers.
  public func publishedKVBytes(_ figures: Figures) -> Double {
    Double(figures.kvBytesLarge) / smallShare + Double(figures.kvBytesSmall)
  }
}

/// Measures a scenario.
public struct ScenarioBenchmark<Base: Backend> {
  public typealias Model = LanguageModel<ProfilingBackend<Base>>
  public typealias ModelSession = Session<ProfilingBackend<Base>>

  /// A variant and what was measured of it.
  private struct Variant {
    let runner: ProfiledRunner<Base>
    let warmUp: ProfiledRunner<Base>
    var runs: [Run] = []
  }

  /// One run, the small model's time at its share.
  private struct Run {
    var ttft: Double
    var firstTTFT: Double
    var decode: Double
    var smallTTFT: Double
    var smallDecode: Double
    var kv: KVBytes
    var peakRSSBytes: Int?
    var mappedLayers: Int
  }

  private let model: Model
  private let scenario: Scenario
  private let repeats: Int
  private let publishedLayers: Int
  /// The large model alone and, where there is one, the pair.
  private let variants: [Variant]
  private let hasMapping: Bool

  /// - Parameters:
  ///   - model: the large model, on a backend of its own.
  ///   - mapping: the small model, on another profiling backend over the same base, or a plan.
  ///   - scenario: what is run.
  ///   - repeats: measured runs of each.
  ///   - publishedLayers: layers of the large model's published shape; `nil` where all are present.
  ///   - sessionOptions: how sessions run.
  public init(
    _ model: Model, mapping: ModelSession.Mapping?, scenario: Scenario, repeats: Int, publishedLayers: Int? = nil,
    sessionOptions: ModelSession.Options = .init()
  ) {
    self.model = model
    self.scenario = scenario
    self.repeats = repeats
    self.publishedLayers = publishedLayers ?? model.decoder.configuration.layerCount
    hasMapping = mapping != nil
    var options = SpeedOptions()
    options.batch = scenario.sequences
    options.promptTokens = scenario.promptTokens
    options.generatedTokens = scenario.generatedTokens
    let short = options.shortened(unmappedTokens: mapping?.unmappedTokens ?? 0)
    let mappings: [ModelSession.Mapping?] = mapping == nil ? [nil] : [nil, mapping]
    variants = mappings.map { mapping in
      func runner(_ options: SpeedOptions) -> ProfiledRunner<Base> {
        ProfiledRunner(model, mapping: mapping, options: options, sessionOptions: sessionOptions)
      }
      return Variant(runner: runner(options), warmUp: runner(short))
    }
  }

  /// Runs everything: one short run of each variant that is not measured, then both by turns, the first of a turn being
  /// the second of the next.
  ///
  /// - Parameter progress: called before each run with the number of those that are done, and of all.
  /// - Throws: ``NoSaving`` where prompts are too short for a map; `DecoderError` where sequences do not fit the models.
  public func run(progress: (_ done: Int, _ all: Int) -> Void = { _, _ in }) throws -> ScenarioResult {
    var variants = variants
    for (index, variant) in variants.enumerated() {
      let plan = try variant.warmUp.measure(seed: 0).sample.plan
      if index > 0, plan.mappedUnits.isEmpty { throw NoSaving(tokens: scenario.promptTokens) }
    }
    for repetition in 1...repeats {
      let turn = repetition.isMultiple(of: 2) ? Array(variants.indices.reversed()) : Array(variants.indices)
      for (place, index) in turn.enumerated() {
        progress((repetition - 1) * turn.count + place, repeats * turn.count)
        PeakMemory.reset()
        variants[index].runs.append(try run(variants[index].runner, seed: repetition))
      }
    }
    return result(variants.map(\.runs))
  }

  private func run(_ runner: ProfiledRunner<Base>, seed: Int) throws -> Run {
    let (sample, phases) = try runner.measure(seed: seed)
    let share = Double(model.decoder.configuration.layerCount) / Double(publishedLayers)
    func small(_ named: [SpeedPhase]) -> Double { named.reduce(0) { $0 + (phases[$1]?.small.seconds ?? 0) } }
    let prefill: [SpeedPhase] = [.firstPrompt, .otherPrompts]
    return Run(
      ttft: (sample.prefill ?? 0) - (1 - share) * small(prefill),
      firstTTFT: (sample.ttft ?? 0) - (1 - share) * small([.firstPrompt]),
      decode: sample.decode - (1 - share) * small([.decode]), smallTTFT: share * small(prefill),
      smallDecode: share * small([.decode]), kv: sample.kv, peakRSSBytes: PeakMemory.bytes,
      mappedLayers: Set(sample.plan.mappedUnits.map(\.layer)).count)
  }

  private func result(_ runs: [[Run]]) -> ScenarioResult {
    func gain(_ value: (Run) -> Double) -> MedianAndRange {
      MedianAndRange(zip(runs[0], runs[1]).map { value($0) / value($1) })
    }
    return ScenarioResult(
      scenario: scenario, repeats: repeats, layerCount: model.decoder.configuration.layerCount,
      publishedLayerCount: publishedLayers, mappedLayerCount: hasMapping ? runs[1][0].mappedLayers : 0,
      unmapped: figures(runs[0]), mapped: hasMapping ? figures(runs[1]) : nil,
      gain: hasMapping
        ? .init(ttft: gain(\.ttft), tpot: gain(\.decode), throughput: gain { $0.ttft + $0.decode }) : nil)
  }

  private func figures(_ runs: [Run]) -> ScenarioResult.Figures {
    let generated = Double(scenario.sequences * scenario.generatedTokens)
    let all = generated + Double(scenario.sequences * scenario.promptTokens)
    let steps = Double(scenario.generatedTokens - 1)
    return ScenarioResult.Figures(
      ttftSeconds: MedianAndRange(runs.map(\.ttft)), firstTTFTSeconds: MedianAndRange(runs.map(\.firstTTFT)),
      tpotSeconds: MedianAndRange(runs.map { $0.decode / steps }),
      smallTTFTSeconds: MedianAndRange(runs.map(\.smallTTFT)).median,
      smallTPOTSeconds: MedianAndRange(runs.map { $0.smallDecode / steps }).median,
      tokensPerSecond: MedianAndRange(runs.map { all / ($0.ttft + $0.decode) }),
      generatedTokensPerSecond: MedianAndRange(runs.map { generated / ($0.ttft + $0.decode) }),
      kvBytesLarge: runs[0].kv.large, kvBytesSmall: runs[0].kv.small,
      peakRSSBytes: runs.compactMap(\.peakRSSBytes).max())
  }
}
