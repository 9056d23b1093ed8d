// `kindred evaluate`: measures a model's quality.

import ArgumentParser
import Foundation
import Kindred
import KindredEvaluation

struct EvaluateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "evaluate",
    abstract: "Measures a model's quality, by several methods side by side.",
    discussion: """
      One run evaluates the unmapped model, the small one, the paper's recipe, plans and controls on the same items \
      (--methods), and gives each score and each difference from the unmapped model a 95% interval. Answers go to a \
      journal as they are found: an interrupted run goes on where it stopped.
      """,
    subcommands: [
      PerplexityCommand.self, MMLUCommand.self, HotpotQACommand.self, GovReportCommand.self, NeedleCommand.self,
      RulerCommand.self, HumanEvalCommand.self, SST2Command.self, STSBCommand.self,
    ])
}

struct PerplexityCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "perplexity",
    abstract: "Measures how well a text is predicted.",
    discussion: """
      The text's tokens are cut into windows, each run from an empty cache. With -s the same model unmapped runs \
      beside, and the divergence between the two is reported; --methods compares several beside one unmapped run. \
      Perplexity is that of tokens; for words (parts between white space) and UTF-8 bytes the same sum is spread over \
      those of the scored tokens.
      """)

  @OptionGroup var models: ModelOptions
  @OptionGroup var methods: MethodOptions

  @Option(help: ArgumentHelp("The text.", valueName: "file"))
  var data: String

  @Option(help: "Tokens of a window.")
  var context = 512

  @Option(help: "Tokens from window to window (default: the context).")
  var stride: Int?

  @Option(help: "The most windows (default: all).")
  var maxWindows: Int?

  @Option(help: "The first token of a window that is scored; those before only serve as context.")
  var scoreFrom = 100

  @Option(help: "Tokens read at a time; results are the same within rounding.")
  var chunk = 128

  func validate() throws {
    if let problem = options.problem { throw ValidationError(problem) }
    try methods.validate(with: models)
    if methods.output != nil, methods.methods == nil {
      throw ValidationError("--output: expected --methods, found none")
    }
  }

  private var options: PerplexityOptions {
    var options = PerplexityOptions()
    options.context = context
    options.stride = stride ?? context
    options.maxWindows = maxWindows
    options.scoreFrom = scoreFrom
    options.chunk = chunk
    return options
  }

  func run() throws {
    try methods.checkOutput(models, data: data)
    let text = try readText(data)
    let loaded = try models.load()
    let list = methods.methods == nil ? [] : try methods.list(for: models)
    // Files are hashed where the hash is stored.
    let provenance =
      try list.isEmpty && methods.journalPath == nil
      ? nil
      : RunProvenance(loaded, models: models, methods: list, data: data == "-" ? [] : [data], seed: methods.seed)
    let setup = try methods.models(loaded, options: models)
    let task =
      try list.isEmpty
      ? PerplexityTask(
        mapping: loaded.mapping, models: setup, options: options, sessionOptions: loaded.sessionOptions)
      : PerplexityTask(methods: list, models: setup, options: options, sessionOptions: loaded.sessionOptions)
    let line = RemainingTime()
    let findings = try task.run(
      text, journalPath: methods.journalPath, inputs: provenance?.inputs.text ?? ""
    ) { done, total, soFar in
      let perplexities = soFar.map { $0.perplexity.formatted(digits: 3) }.joined(separator: " ")
      line.show(Double(done) / Double(total), "window \(done) of \(total), perplexity \(perplexities)")
    }
    line.clear()
    guard !list.isEmpty, let provenance else { return try report(findings.results[0], loaded) }
    try methods.report(
      EvaluationResult(
        task: PerplexityTask<CPUBackend>.name, items: findings.windows, skippedItems: 0,
        methods: try findings.methodResults(seed: methods.seed), provenance: provenance.finished()))
  }

  private func report(_ result: PerplexityResult, _ loaded: LoadedModels<CPUBackend>) throws {
    if methods.json { return try printJSON(Joined(result, loaded.conditions)) }
    print(
      "perplexity \(result.perplexity.formatted(digits: 4)) over \(result.tokensScored) tokens of \(result.windows) windows"
    )
    if let word = result.wordPerplexity, let byte = result.bytePerplexity {
      print("of words \(word.formatted(digits: 4)), of bytes \(byte.formatted(digits: 4))")
    }
    if let unmapped = result.unmappedPerplexity, let divergence = result.klToUnmapped, let top = result.top1Agreement {
      print(
        "unmapped \(unmapped.formatted(digits: 4)), factor \((result.perplexity / unmapped).formatted(digits: 4)), "
          + "KL \(divergence.formatted(digits: 4)), same top token \((100 * top).formatted(digits: 1))%")
    }
    print("KV cache \(byteText(result.kv.total)) at a window's end, unmapped \(byteText(result.kv.unmapped))")
  }
}
