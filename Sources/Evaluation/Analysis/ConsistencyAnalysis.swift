// Whether the map of the prompt is still the best one while text is generated (IAM's Fig. 3).

import KindredAttentionMapping
import KindredCompute
import KindredGeneration
import KindredTransformer

/// Compares the map of the prompt's first τ_t tokens with the maps of generated tokens.
///
/// The unmapped large model continues the prompt; both models then read prompt and continuation, and maps are compared
/// over the rows of the continuation, which see all positions before them: those that a mapped model would borrow.
public struct ConsistencyAnalysis: Analysis {
  /// Tokens to generate.
  public var tokens = 500
  /// Generated tokens between two points of the curve.
  public var every = 100
  /// How the continuation is drawn; 0 takes the most likely token each time, and may run into repetition.
  public var temperature: Float = 0.8
  /// Decides the draws.
  public var seed: UInt64 = 0

  public init() {}

  public var problem: String? {
    if let problem = sizeProblem("tokens", tokens) { return problem }
    if !(1...tokens).contains(every) { return "every: expected 1 to the \(tokens) tokens, found \(every)" }
    return sampling.problem
  }

  private var sampling: SamplingOptions {
    var options = SamplingOptions()
    options.temperature = temperature
    options.seed = seed
    return options
  }

  /// What the prompt's map is worth for some heads.
  private struct Agreement {
    var same = 0
    var best = 0.0
    var kept = 0.0
    var count = 0

    /// Shares and mean cosines: heads whose map stays, of the best map, of the prompt's, and the difference.
    var cells: [AnalysisTable.Cell] { figures.map { .number($0) } }
    var figures: [Double] {
      let count = Double(count)
      return [Double(same) / count, best / count, kept / count, (best - kept) / count]
    }
    static let columns = ["share_same", "best_cosine", "cosine_of_prompts_map", "cosine_lost"]

    init(_ sums: SimilaritySums, map: [Int], heads: Range<Int>) {
      for head in heads {
        let now = sums.best(head)
        count += 1
        if now == map[head] { same += 1 }
        best += sums.value(head, now)
        kept += sums.value(head, map[head])
      }
    }
  }

  public func run<B: Backend>(
    _ pair: AnalysedPair<B>, texts: [[Int32]], progress: (_ share: Double, _ step: String) -> Void
  ) throws -> AnalysisReport {
    let prompt = try pair.windows(1, of: texts[0])[0]
    let context = min(pair.large.configuration.contextLength, pair.small.configuration.contextLength)
    guard prompt.count + tokens <= context else {
      throw DecoderError.contextExceeded(needed: prompt.count + tokens, limit: context)
    }
    let continuation = try generate(pair, prompt, progress: progress)
    let reader = try pair.reader()
    let promptSums = try reader.read(prompt)
    let map = (0..<promptSums.largeCount).map(promptSums.best)
    var steps: [(tokens: Int, agreement: Agreement)] = []
    var all: SimilaritySums?
    for start in stride(from: 0, to: tokens, by: every) {
      progress(0.7 + 0.3 * Double(start) / Double(tokens), "comparing heads after \(start) generated tokens")
      let part = Array(continuation[start..<min(start + every, tokens)])
      let sums = try reader.read(part)
      steps.append((start + part.count, Agreement(sums, map: map, heads: map.indices)))
      if all == nil { all = sums } else { all?.add(sums) }
    }
    guard let all else { preconditionFailure("at least one token was generated") }
    let heads = pair.heads.large
    let layers = (0..<pair.layers.large).map { Agreement(all, map: map, heads: $0 * heads..<($0 + 1) * heads) }
    return report(Agreement(all, map: map, heads: map.indices), steps: steps, layers: layers)
  }

  private func generate<B: Backend>(
    _ pair: AnalysedPair<B>, _ prompt: [Int32], progress: (Double, String) -> Void
  ) throws -> [Int32] {
    var options = Session<B>.Options()
    options.kvType = pair.kvType
    let session = try Session(decoder: pair.large, options: options)
    let vocabulary = min(pair.large.configuration.vocabularySize, pair.small.configuration.vocabularySize)
    var sampler = Sampler(sampling)
    var logits = try session.append(prompt)
    for done in 0..<tokens {
      progress(0.7 * Double(done) / Double(tokens), "generated \(done) of \(tokens) tokens")
      let next = sampler.next(Array(logits.prefix(vocabulary)), history: session.tokens)
      if done + 1 == tokens { return Array(session.tokens.dropFirst(prompt.count)) + [next] }
      logits = try session.append([next])
    }
    return []
  }

  private func report(
    _ total: Agreement, steps: [(tokens: Int, agreement: Agreement)], layers: [Agreement]
  ) -> AnalysisReport {
    let figures = total.figures
    return AnalysisReport(
      name: "consistency",
      findings: [
        .init(name: "share of heads whose best map is still the prompt's", value: figures[0]),
        .init(name: "mean cosine with the best map", value: figures[1]),
        .init(name: "mean cosine with the prompt's map", value: figures[2]),
        .init(name: "cosine lost", value: figures[3]),
      ],
      tables: [
        AnalysisTable(
          "consistency-steps", columns: ["generated_tokens"] + Agreement.columns,
          rows: steps.map { [.integer($0.tokens)] + $0.agreement.cells }),
        AnalysisTable(
          "consistency-layers", columns: ["large_layer"] + Agreement.columns,
          rows: layers.enumerated().map { [.integer($0)] + $1.cells }),
      ],
      figures: [
        .lines(
          "consistency-steps", title: "The prompt's map while text is generated", x: steps.map { Double($0.tokens) },
          series: series(steps.map(\.agreement)), labels: ("generated tokens", "share or cosine")),
        .lines(
          "consistency-layers", title: "The prompt's map over all generated tokens, by layer",
          x: layers.indices.map(Double.init), series: series(layers), labels: ("large layer", "share or cosine")),
      ])
  }

  private func series(_ agreements: [Agreement]) -> [(name: String, values: [Double?])] {
    [("share of heads whose map stays", 0), ("best cosine", 1), ("cosine of the prompt's map", 2)].map { name, index in
      (name, agreements.map { $0.figures[index] })
    }
  }
}
