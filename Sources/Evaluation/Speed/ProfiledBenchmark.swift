// The speed benchmark with every operation timed, for a model alone or a pair whose models are told apart.

import KindredCompute
import KindredGeneration

/// The operations of a phase, or of several repetitions of it.
package struct PhaseProfile {
  package var large = OperationProfile()
  package var small = OperationProfile()
  /// The whole phase.
  package var seconds = 0.0

  package init(large: OperationProfile = .init(), small: OperationProfile = .init(), seconds: Double = 0) {
    self.large = large
    self.small = small
    self.seconds = seconds
  }

  /// Time outside of the operations, which is not told apart by model.
  var otherSeconds: Double { max(0, seconds - large.seconds - small.seconds) }

  mutating func add(_ other: PhaseProfile) {
    large.add(other.large)
    small.add(other.small)
    seconds += other.seconds
  }
}

/// Runs repetitions of models on profiling backends, one for each model.
struct ProfiledRunner<Base: Backend> {
  typealias Model = LanguageModel<ProfilingBackend<Base>>
  typealias ModelSession = Session<ProfilingBackend<Base>>

  private let large: ProfilingBackend<Base>
  private let small: ProfilingBackend<Base>?
  private let runner: SpeedRunner<ProfilingBackend<Base>>

  init(_ model: Model, mapping: ModelSession.Mapping?, options: SpeedOptions, sessionOptions: ModelSession.Options) {
    large = model.decoder.backend
    small = mapping?.small?.backend
    runner = SpeedRunner(model, mapping: mapping, options: options, sessionOptions: sessionOptions)
  }

  /// Runs one repetition; of its phases, those of the first prompt and of decode are kept.
  func measure(seed: Int) throws -> (sample: SpeedSample, phases: [SpeedPhase: PhaseProfile]) {
    var phases: [SpeedPhase: PhaseProfile] = [:]
    func take() -> PhaseProfile {
      PhaseProfile(large: large.takeProfile(), small: small?.takeProfile() ?? OperationProfile())
    }
    _ = take()
    let sample = try runner.measure(seed: seed) { phases[$0] = take() }
    phases[.firstPrompt]?.seconds = sample.ttft ?? 0
    phases[.decode]?.seconds = sample.decode
    return (sample, phases)
  }
}

/// Where the time of prefill and decode goes, for each model.
public struct SpeedProfile: Sendable, Hashable, Encodable {
  /// The profile of one model.
  public struct OfModel: Sendable, Hashable, Encodable {
    /// A step is the first prompt of a repetition; `nil` where a depth is asked for.
    public var prefill: StepProfile?
    /// A step is one token of every sequence.
    public var decode: StepProfile
  }

  /// Of a pair, the model that borrows; time outside of operations is counted here.
  public var large: OfModel
  /// The model that lends.
  public var small: OfModel?
}

/// Measures speed, and what each operation takes of it.
public struct ProfiledBenchmark<Base: Backend> {
  public typealias Model = LanguageModel<ProfilingBackend<Base>>
  public typealias ModelSession = Session<ProfilingBackend<Base>>

  private let model: Model
  private let mapping: ModelSession.Mapping?
  private let options: SpeedOptions
  private let runner: ProfiledRunner<Base>

  /// - Parameters:
  ///   - model: a model on a backend of its own.
  ///   - mapping: the small model of a pair, on another profiling backend over the same base.
  ///   - options: what is measured.
  ///   - sessionOptions: how sessions run.
  public init(
    _ model: Model, mapping: ModelSession.Mapping? = nil, options: SpeedOptions,
    sessionOptions: ModelSession.Options = .init()
  ) {
    self.model = model
    self.mapping = mapping
    self.options = options
    runner = ProfiledRunner(model, mapping: mapping, options: options, sessionOptions: sessionOptions)
  }

  /// Runs all repetitions.
  ///
  /// - Parameter progress: called before each repetition with its number, 0 for the unmeasured one.
  public func run(progress: (Int) -> Void = { _ in }) throws -> (result: SpeedResult, profile: SpeedProfile) {
    var samples: [SpeedSample] = []
    var sums: [SpeedPhase: PhaseProfile] = [:]
    for repetition in 0...options.repeats {
      progress(repetition)
      let (sample, phases) = try runner.measure(seed: repetition)
      guard repetition > 0 else { continue }
      samples.append(sample)
      for (phase, profile) in phases { sums[phase, default: PhaseProfile()].add(profile) }
    }
    return (SpeedResult(samples, options: options), profile(sums))
  }

  private func profile(_ sums: [SpeedPhase: PhaseProfile]) -> SpeedProfile {
    let decode = sums[.decode] ?? PhaseProfile()
    let tokens = options.repeats * (options.generatedTokens - 1)
    let large = model.decoder.configuration
    return SpeedProfile(
      large: SpeedProfile.OfModel(
        prefill: sums[.firstPrompt].map {
          StepProfile($0.large, of: large, steps: options.repeats, otherSeconds: $0.otherSeconds)
        },
        decode: StepProfile(decode.large, of: large, steps: tokens, otherSeconds: decode.otherSeconds)),
      small: mapping?.small.map { small in
        let small = small.configuration
        return SpeedProfile.OfModel(
          prefill: sums[.firstPrompt].map {
            StepProfile($0.small, of: small, steps: options.repeats, otherSeconds: 0)
          },
          decode: StepProfile(decode.small, of: small, steps: tokens, otherSeconds: 0))
      })
  }
}
