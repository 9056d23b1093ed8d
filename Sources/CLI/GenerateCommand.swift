// `kindred generate`: continues a prompt.

import ArgumentParser
import Foundation
import Kindred

struct SamplingArguments: ParsableArguments {
  @Option(name: [.customShort("n"), .long], parsing: .unconditional, help: "The most tokens to generate.")
  var maxTokens = 256

  @Option(help: "What logits are divided by; 0 takes the most likely token each time.")
  var temperature: Float = 0

  @Option(help: "Draw from this many most likely tokens only; 0 for all.")
  var topK = 0

  @Option(help: "Draw from the fewest most likely tokens that together have this probability.")
  var topP: Float = 1

  @Option(help: "Draw from tokens at least this many times as likely as the most likely one.")
  var minP: Float = 0

  @Option(help: "Make tokens that occurred less likely; 1 for no change.")
  var repetitionPenalty: Float = 1

  @Option(help: "The seed of the draws (default: random).")
  var seed: UInt64?

  @Option(help: "A text that ends the generation; may be given several times.")
  var stop: [String] = []

  func validate() throws {
    if maxTokens < 1 { throw ValidationError("--max-tokens: expected at least 1, found \(maxTokens)") }
    if let problem = options.sampling.problem { throw ValidationError(problem) }
  }

  var options: GenerationOptions {
    var sampling = SamplingOptions()
    sampling.temperature = temperature
    sampling.topK = topK
    sampling.topP = topP
    sampling.minP = minP
    sampling.repetitionPenalty = repetitionPenalty
    sampling.seed = seed
    return GenerationOptions(maxTokens: maxTokens, sampling: sampling, stops: stop)
  }
}

struct GenerateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "generate",
    abstract: "Continues a prompt.",
    discussion: """
      The text goes to standard output as it comes, the figures to standard error. With -s the last 30% of the \
      layers (--ratio) take their attention from the small model. Ctrl-C ends the text and prints the figures.
      """)

  @OptionGroup var models: ModelOptions
  @OptionGroup var sampling: SamplingArguments

  @Option(name: [.short, .long], help: "The prompt.")
  var prompt: String?

  @Option(help: ArgumentHelp("A file that holds the prompt; - for standard input.", valueName: "file"))
  var promptFile: String?

  @Flag(help: "Print one JSON object with the text and the figures.")
  var json = false

  func validate() throws {
    if (prompt == nil) == (promptFile == nil) { throw ValidationError("expected --prompt or --prompt-file") }
  }

  private func promptText() throws -> String {
    if let prompt { return prompt }
    return try readText(promptFile ?? "-")
  }

  func run() throws {
    let text = try promptText()
    if text.isEmpty { throw PromptError.empty }
    let loaded = try models.load()
    guard let tokenizer = loaded.large.tokenizer else { throw PromptError.noTokenizer(model: loaded.large.name) }
    let tokens = try tokenizer.promptTokens(text)
    let cancelled = CancellationFlag()
    let interrupts = InterruptHandler { cancelled.set() }
    defer { withExtendedLifetime(interrupts) {} }
    var generated = ""
    let line = StatusLine()
    let statistics = try TextGeneration(
      session: try loaded.session(), tokenizer: tokenizer, options: sampling.options
    ).run(
      tokens, progress: { if $0 < tokens.count { line.show("reading the prompt: \($0) of \(tokens.count) tokens") } },
      isCancelled: { cancelled.isSet },
      onText: { piece in
        line.clear()
        if json { generated += piece } else { try standardOutput(piece) }
      })
    line.clear()
    if json {
      try printJSON(Joined(["text": generated], Joined(statistics, loaded.conditions)))
    } else {
      print()
      standardError(statistics.summary)
    }
  }
}

extension GenerationStatistics {
  /// The figures for people, in two lines.
  var summary: String {
    let decode = tpotSeconds > 0 ? ", then \((1 / tpotSeconds).formatted(digits: 1)) tokens/s" : ""
    let small = kv.small > 0 ? " (large \(byteText(kv.large)) + small \(byteText(kv.small)))" : ""
    return """

      \(promptTokens) prompt tokens, first token after \(ttftSeconds.formatted(digits: 2)) s; \
      \(generatedTokens) generated\(decode); ended by \(stopReason.rawValue)
      KV cache \(byteText(kv.total))\(small), unmapped \(byteText(kv.unmapped))

      """
  }
}
