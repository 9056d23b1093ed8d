// `kindred evaluate`: measures a model's quality.

import ArgumentParser
import Foundation
import Kindred
import KindredEvaluation

struct EvaluateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "evaluate",
    abstract: "Measures a model's quality.",
    subcommands: [PerplexityCommand.self])
}

struct PerplexityCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "perplexity",
    abstract: "Measures how well a text is predicted.",
    discussion: """
      The text's tokens are cut into windows, each run from an empty cache. With -s the same model unmapped runs \
      beside, and the divergence between the two is reported.
      """)

  @OptionGroup var models: ModelOptions

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

  @Option(help: "Tokens read at a time; does not change results.")
  var chunk = 128

  @Flag(help: "Print the result as one JSON object.")
  var json = false

  func validate() throws {
    if let problem = options.problem { throw ValidationError(problem) }
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
    let text = try readText(data)
    let loaded = try models.load()
    guard let tokenizer = loaded.large.tokenizer else { throw PromptError.noTokenizer(model: loaded.large.name) }
    let tokens = try tokenizer.promptTokens(text)
    let start = ContinuousClock.now
    let line = StatusLine()
    let result = try PerplexityEvaluation(
      loaded.large, mapping: loaded.mapping, options: options, sessionOptions: loaded.sessionOptions
    ).run(tokens) { done, total, soFar in
      let left = (ContinuousClock.now - start).seconds / Double(done) * Double(total - done)
      line.show("window \(done) of \(total), perplexity \(soFar.perplexity.formatted(digits: 3)), \(Int(left)) s left")
    }
    line.clear()
    if json { return try printJSON(Joined(result, loaded.conditions)) }
    print(
      "perplexity \(result.perplexity.formatted(digits: 4)) over \(result.tokensScored) tokens of \(result.windows) windows"
    )
    if let unmapped = result.unmappedPerplexity, let divergence = result.klToUnmapped, let top = result.top1Agreement {
      print(
        "unmapped \(unmapped.formatted(digits: 4)), factor \((result.perplexity / unmapped).formatted(digits: 4)), "
          + "KL \(divergence.formatted(digits: 4)), same top token \((100 * top).formatted(digits: 1))%")
    }
    print("KV cache \(byteText(result.kv.total)) at a window's end, unmapped \(byteText(result.kv.unmapped))")
  }
}
