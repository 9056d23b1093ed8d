// The speed benchmark on tiny random models: what it reports, not how fast they are.

import KindredAttentionMapping
import KindredCompute
import KindredEvaluation
import KindredGeneration
import KindredTransformer
import Testing

// Serialized, as profiles are the backends' and models are shared.
@Suite(.serialized) struct SpeedBenchmarkTests {
  typealias Profiling = ProfilingBackend<CPUBackend>

  /// One tiny model on three backends over one pool of threads.
  struct Models {
    let plain: LanguageModel<CPUBackend>
    let large: LanguageModel<Profiling>
    let small: LanguageModel<Profiling>

    init() throws {
      let model = OpenedModel(random: try RandomModel("random:qwen2-0.5b:layers=1"))
      let backend = try CPUBackend(threads: 2)
      plain = try LanguageModel(model, backend: backend)
      large = try LanguageModel(model, backend: Profiling(backend))
      small = try LanguageModel(model, backend: Profiling(backend))
    }
  }

  static let models = Result { try Models() }
  let models: Models

  init() throws { models = try Self.models.get() }

  func mapping<B: Backend>(_ model: LanguageModel<B>) -> Session<B>.Mapping {
    var recipe = PaperRecipe(layers: .explicit([0]))
    recipe.establishmentTokens = 20
    return Session.Mapping.established(small: model.decoder, recipe: recipe)
  }

  var options: SpeedOptions {
    var options = SpeedOptions()
    options.promptTokens = 24
    options.generatedTokens = 3
    options.repeats = 1
    return options
  }

  @Test func profilingLeavesLogitsAsTheyAre() throws {
    let tokens = (0..<30).map { Int32($0 * 37) }
    let plainSession = try Session(decoder: models.plain.decoder, mapping: mapping(models.plain))
    let profiledSession = try Session(decoder: models.large.decoder, mapping: mapping(models.small))
    #expect(try plainSession.append(tokens) == profiledSession.append(tokens))
    #expect(try plainSession.step([5]) == profiledSession.step([5]))
  }

  @Test func profileOfAPair() throws {
    let (result, profile) = try ProfiledBenchmark(models.large, mapping: mapping(models.small), options: options).run()
    let lenders = try #require(profile.small)
    let prefill = try #require(profile.large.prefill?.secondsPerStep) + (lenders.prefill?.secondsPerStep ?? 0)
    #expect(abs(prefill - (result.ttftSeconds?.median ?? 0)) < 1e-6)
    let decode = profile.large.decode.secondsPerStep + lenders.decode.secondsPerStep
    #expect(abs(decode - result.tpotSeconds.median) < 1e-6)
    let parts = Set(profile.large.decode.rows.map(\.part))
    #expect(parts.isSuperset(of: [.norm, .value, .borrowedAttention, .attentionOutput]))
    #expect(parts.isSuperset(of: [.gateUp, .down, .output]))
    #expect(parts.isDisjoint(with: [.queryKeyValue, .attention, .rotation, .keyStorage]))
    let lent = Set(lenders.decode.rows.map(\.part))
    #expect(lent.isSuperset(of: [.norm, .queryKeyValue, .attention, .rotation]))
    // Rows are kept while attention computes them.
    #expect(!lent.contains(.lentRows))
    // A lending model of one layer ends with its attention.
    #expect(lent.isDisjoint(with: [.gateUp, .down, .output, .borrowedAttention]))
  }

  @Test func savingIsComparedPartByPart() throws {
    let result = try SavingBenchmark(
      models.large, mapping: mapping(models.small), smallShare: 0.25, options: options
    ).run()
    #expect(result.mappedLayers == 1 && result.smallShare == 0.25 && result.lentHeads > 0)
    #expect(result.distinctProducts >= result.lentHeads)
    let attention = try #require(result.tpot.rows.first { $0.part == "attention" })
    #expect(abs(attention.predictedSeconds - attention.unmappedSeconds / 2) < 1e-12)
    #expect(result.ttft?.rows.contains { $0.part == "small model, its share" && $0.measuredSeconds > 0 } == true)
    #expect(result.tpot.predictedGain > 0 && result.tpot.measuredGain > 0)
  }

  @Test func tooShortForAMap() throws {
    var options = options
    options.promptTokens = 4
    #expect(throws: NoSaving.self) {
      try SavingBenchmark(models.large, mapping: mapping(models.small), smallShare: 1, options: options).run()
    }
  }

  /// Sequences are padded to the depth, and every repetition begins there.
  @Test func decodeAtDepth() throws {
    var options = options
    options.depth = 600
    options.batch = 2
    options.repeats = 2
    let result = try SpeedBenchmark(models.plain, mapping: mapping(models.plain), options: options).run()
    #expect(result.prefillTokensPerSecond == nil && result.ttftSeconds == nil)
    #expect(result.tpotSeconds.minimum > 0)
    // 602 positions in 10 pages of 64, 2 sequences, 2 KV heads of 64 elements in 2 bytes; mapped: values only.
    let values = 10 * 64 * 2 * 2 * 64 * 2
    #expect(result.kv.unmapped == 2 * values)
    #expect(result.kv.large == values)
  }

  @Test func depthIsChecked() {
    var options = options
    options.depth = 0
    #expect(options.problem?.contains("depth") == true)
  }
}
