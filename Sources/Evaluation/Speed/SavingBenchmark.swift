// What borrowing saves, predicted and measured in one run (`kindred bench --explain`).
//
// Prediction: the measured time of each of the large model's operations without borrowing, times the share of its
// work that remains with it (`BorrowedWork`), and the small model's ordinary operations. No constant of any machine
// enters. Measurement: the pair's time. In both the small model's time is counted at the share of the large model's
// layers that is present, as random weights of few layers stand for a model of many.

import KindredAttention
import KindredCompute
import KindredGeneration

/// What borrowing saves of a time, predicted and measured: medians over repetitions.
public struct Saving: Sendable, Hashable {
  /// One part of the work.
  public struct Row: Sendable, Hashable, Encodable {
    /// As in the printed table: `Q, K, V`.
    public var part: String
    /// Without borrowing.
    public var unmappedSeconds: Double
    /// With it, by the arithmetic of `BorrowedWork`.
    public var predictedSeconds: Double
    /// With it, as timed.
    public var measuredSeconds: Double

    private enum CodingKeys: String, CodingKey {
      case part = "operation"
      case unmappedSeconds = "unmapped_seconds"
      case predictedSeconds = "predicted_seconds"
      case measuredSeconds = "measured_seconds"
    }
  }

  /// The large model's parts, then the small model as a whole.
  public var rows: [Row]
  /// The whole of the large model alone, over repetitions.
  public var unmappedSeconds: MedianAndRange
  /// What the whole of both should take by arithmetic (``BorrowedWork``).
  public var predictedSeconds: MedianAndRange
  /// What the whole of both takes.
  public var measuredSeconds: MedianAndRange
  /// Seconds predicted to be saved by the parts in which borrowing changes something. The others differ by chance, and
  /// where a saving is small, by more than it.
  public var predictedChange: Double
  /// Seconds saved by the same parts.
  public var measuredChange: Double

  /// How many times faster borrowing should be.
  public var predictedGain: Double { unmappedSeconds.median / predictedSeconds.median }
  /// How many times faster borrowing is.
  public var measuredGain: Double { unmappedSeconds.median / measuredSeconds.median }
  /// The share of the predicted saving that is reached; `nil` where none is predicted.
  public var reached: Double? {
    let predicted = unmappedSeconds.median - predictedSeconds.median
    return predicted > 0 ? (unmappedSeconds.median - measuredSeconds.median) / predicted : nil
  }
  /// The same of the parts in which borrowing changes something.
  public var changeReached: Double? { predictedChange > 0 ? measuredChange / predictedChange : nil }
}

extension Saving: Encodable {
  private enum CodingKeys: String, CodingKey {
    case rows = "operations"
    case unmapped = "unmapped_seconds"
    case predicted = "predicted_seconds"
    case measured = "measured_seconds"
    case measuredMinimum = "measured_seconds_min"
    case measuredMaximum = "measured_seconds_max"
    case predictedGain = "predicted_gain"
    case measuredGain = "measured_gain"
    case reached = "reached_share"
    case predictedChange = "predicted_change_seconds"
    case measuredChange = "measured_change_seconds"
    case changeReached = "reached_share_of_change"
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(rows, forKey: .rows)
    try container.encode(unmappedSeconds.median, forKey: .unmapped)
    try container.encode(predictedSeconds.median, forKey: .predicted)
    try container.encode(measuredSeconds.median, forKey: .measured)
    try container.encode(measuredSeconds.minimum, forKey: .measuredMinimum)
    try container.encode(measuredSeconds.maximum, forKey: .measuredMaximum)
    try container.encode(predictedGain, forKey: .predictedGain)
    try container.encode(measuredGain, forKey: .measuredGain)
    try container.encodeIfPresent(reached, forKey: .reached)
    try container.encode(predictedChange, forKey: .predictedChange)
    try container.encode(measuredChange, forKey: .measuredChange)
    try container.encodeIfPresent(changeReached, forKey: .changeReached)
  }
}

/// What borrowing saves of the time to first token and of the time per token.
public struct SavingResult: Sendable, Hashable, Encodable {
  /// `nil` where a depth is asked for.
  public var ttft: Saving?
  /// Of the time per token in decode.
  public var tpot: Saving
  /// The share at which the small model's time is counted.
  public var smallShare: Double
  /// Layers that borrow.
  public var mappedLayers: Int
  /// Distinct small heads in use, by all layers.
  public var lentHeads: Int
  /// Distinct (small head, KV group) products, over all mapped layers; unmapped they have one for each query head.
  public var distinctProducts: Int

  private enum CodingKeys: String, CodingKey {
    case ttft, tpot
    case smallShare = "small_share"
    case mappedLayers = "mapped_layer_count"
    case lentHeads = "lent_heads"
    case distinctProducts = "distinct_products"
  }
}

/// Measures the large model alone and the pair, by turns, and compares the saving with its prediction.
public struct SavingBenchmark<Base: Backend> {
  public typealias Model = LanguageModel<ProfilingBackend<Base>>
  public typealias ModelSession = Session<ProfilingBackend<Base>>

  private let model: Model
  private let mapping: ModelSession.Mapping
  private let options: SpeedOptions
  private let smallShare: Double
  private let sessionOptions: ModelSession.Options
  private let alone: ProfiledRunner<Base>
  private let pair: ProfiledRunner<Base>

  /// - Parameters:
  ///   - model: the large model, on a backend of its own.
  ///   - mapping: the small model, on another profiling backend over the same base.
  ///   - smallShare: the share at which the small model's time is counted.
  ///   - options: what is measured.
  ///   - sessionOptions: how sessions run.
  public init(
    _ model: Model, mapping: ModelSession.Mapping, smallShare: Double, options: SpeedOptions,
    sessionOptions: ModelSession.Options = .init()
  ) {
    self.model = model
    self.mapping = mapping
    self.options = options
    self.smallShare = smallShare
    self.sessionOptions = sessionOptions
    alone = ProfiledRunner(model, mapping: nil, options: options, sessionOptions: sessionOptions)
    pair = ProfiledRunner(model, mapping: mapping, options: options, sessionOptions: sessionOptions)
  }

  /// Runs all repetitions.
  ///
  /// - Parameter progress: called before each repetition with its number, 0 for the unmeasured one.
  /// - Throws: ``NoSaving`` where the sequences are too short for a map.
  public func run(progress: (Int) -> Void = { _ in }) throws -> SavingResult {
    var plan = AttentionPlan(units: [])
    var comparisons: [SpeedPhase: [Comparison]] = [:]
    progress(0)
    try warmUp()
    for repetition in 1...options.repeats {
      progress(repetition)
      let unmapped = try alone.measure(seed: repetition).phases
      let (sample, mapped) = try pair.measure(seed: repetition)
      plan = sample.plan
      guard !plan.mappedUnits.isEmpty else { throw NoSaving(tokens: options.depth ?? options.promptTokens) }
      for (phase, profile) in mapped {
        guard let before = unmapped[phase], let steps = steps(of: phase) else { continue }
        let work = BorrowedWork(
          plan: plan, shape: model.decoder.configuration.attention,
          smallDimension: mapping.small?.configuration.attention.headDimension ?? 0,
          lastLayerAttends: model.decoder.configuration.isSlice)
        comparisons[phase, default: []].append(
          Comparison(
            unmapped: before, mapped: profile, model: model.decoder.configuration, smallShare: smallShare,
            remaining: { work.remaining($0, in: steps, products: $1) }))
      }
    }
    let groupSize = model.decoder.configuration.attention.groupSize
    let loans = plan.units.indices.flatMap { plan.loans(layer: $0, groupSize: groupSize) }
    return SavingResult(
      ttft: comparisons[.firstPrompt].map { Saving($0, steps: 1) },
      tpot: Saving(comparisons[.decode] ?? [], steps: options.generatedTokens - 1), smallShare: smallShare,
      mappedLayers: Set(plan.mappedUnits.map(\.layer)).count, lentHeads: plan.lentHeads.count,
      distinctProducts: loans.reduce(0) { $0 + $1.borrowers.count })
  }

  /// A short run of each that is not measured, or where a depth is asked for, a whole one: it reads what lies before.
  private func warmUp() throws {
    for (mapping, runner) in [(nil, alone), (mapping, pair)] {
      var runner = runner
      if options.depth == nil {
        let short = options.shortened(unmappedTokens: self.mapping.unmappedTokens)
        runner = ProfiledRunner(model, mapping: mapping, options: short, sessionOptions: sessionOptions)
      }
      _ = try runner.measure(seed: 0)
    }
  }

  private func steps(of phase: SpeedPhase) -> BorrowedWork.Steps? {
    switch phase {
    case .firstPrompt: .prefill(tokens: options.promptTokens, unmapped: mapping.unmappedTokens)
    case .decode: .decode
    case .preparation, .otherPrompts: nil
    }
  }
}

/// Without a map nothing is saved.
public struct NoSaving: Error, Sendable, CustomStringConvertible {
  let tokens: Int
  public var description: String {
    "saving: expected layers that borrow and a prompt long enough to map them, found \(tokens) tokens and no map"
  }
}
