// `kindred bench`: measures speed and memory.

import ArgumentParser
import Foundation
import Kindred
import KindredEvaluation

struct BenchCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench",
    abstract: "Measures speed and memory.",
    discussion: """
      Random prompts, so that no prefix is shared; one unmeasured repetition first; medians with their range. \
      Works with random weights: -m random:qwen2-72b:layers=4.

      --profile tells the time of each operation. --explain compares what borrowing saves with what arithmetic says: \
      the time of each operation without borrowing, times the share of its operations (time to first token) or bytes \
      (time per token) that remains, and the small model. Of random:SHAPE:layers=N the small model's time is counted \
      at N by the layers of the shape.

      --scenario runs the work of IAM's Table 3, paper-multi-user (64 sequences of 512 + 512 tokens) or \
      paper-long-context (4 of 8192 + 512), or that of a file such as
        {"name": "chat", "sequences": 8, "prompt_tokens": 256, "generate_tokens": 64, "ratio": 0.5}
      (or "plan": FILE), by the large model alone and with borrowed attention, by turns. --scale multiplies the number \
      of sequences and both lengths. The time to first token is that of all sequences, as in the paper; options of \
      the command line that say what borrows come before the scenario's. The small model's time is counted as above.
      """)

  @OptionGroup var models: ModelOptions

  @Option(help: "Tokens of each prompt.")
  var promptTokens = 512

  @Option(help: "Tokens generated after each prompt.")
  var generateTokens = 64

  @Option(help: "Sequences decoded together.")
  var batch = 1

  @Option(
    help: ArgumentHelp(
      "Decode after so many tokens, read once, instead of after prompts; random weights get random keys and values.",
      valueName: "tokens"))
  var depth: Int?

  @Option(name: .customLong("repeat"), help: "Measured repetitions.")
  var repeats = 5

  @Flag(help: "Tell the time of each operation.")
  var profile = false

  @Flag(help: "Compare the saving of a pair with what arithmetic predicts.")
  var explain = false

  @Option(
    help: ArgumentHelp(
      "Run paper-multi-user, paper-long-context or a file's sequences, unmapped and mapped by turns.",
      valueName: "scenario"))
  var scenario: String?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Multiply a scenario's number of sequences and its lengths (default: 1).", valueName: "factor"))
  var scale: Double?

  @Flag(help: "Print the result as one JSON object.")
  var json = false

  func validate() throws {
    if let problem = options.problem { throw ValidationError(problem) }
    if let scale, !(scale > 0 && scale <= 1) {
      throw ValidationError("--scale: expected more than 0 and at most 1, found \(scale)")
    }
    if scenario == nil {
      if scale != nil { throw ValidationError("--scale: expected a --scenario, found none") }
    } else if profile || explain {
      throw ValidationError("expected --scenario, --profile or --explain, found several")
    } else if depth != nil || promptTokens != 512 || generateTokens != 64 || batch != 1 {
      throw ValidationError(
        "--scenario: expected no --prompt-tokens, --generate-tokens, --batch or --depth, which are the scenario's")
    }
    if profile, explain { throw ValidationError("expected --profile or --explain, found both") }
    if explain, models.small == nil {
      throw ValidationError("--explain: expected a small model (-s) to borrow from, found none")
    }
  }

  private var options: SpeedOptions {
    var options = SpeedOptions()
    options.promptTokens = promptTokens
    options.generatedTokens = generateTokens
    options.batch = batch
    options.depth = depth
    options.repeats = repeats
    return options
  }

  func run() throws {
    if explain { return try runExplained() }
    if let scenario { return try runScenario(scenario) }
    let line = StatusLine()
    func progress(_ repetition: Int) {
      line.show(repetition == 0 ? "warming up" : "repetition \(repetition) of \(repeats)")
    }
    if profile {
      let loaded = try models.loadProfiled()
      let (result, profile) = try ProfiledBenchmark(
        loaded.large, mapping: loaded.mapping, options: options, sessionOptions: loaded.sessionOptions
      ).run(progress: progress)
      line.clear()
      let conditions = loaded.conditions
      if json { return try printJSON(Joined(result, Joined(["profile": profile], conditions))) }
      printSpeed(result, conditions: conditions)
      printProfile(profile)
    } else {
      let loaded = try models.load()
      let result = try SpeedBenchmark(
        loaded.large, mapping: loaded.mapping, options: options, sessionOptions: loaded.sessionOptions
      ).run(progress: progress)
      line.clear()
      let conditions = loaded.conditions
      if json { return try printJSON(Joined(result, conditions)) }
      printSpeed(result, conditions: conditions)
    }
  }

  private func runExplained() throws {
    let loaded = try models.loadProfiled()
    guard let mapping = loaded.mapping else { return }
    let line = StatusLine()
    let result = try SavingBenchmark(
      loaded.large, mapping: mapping, smallShare: models.layerShare, options: options,
      sessionOptions: loaded.sessionOptions
    ).run { line.show($0 == 0 ? "warming up" : "repetition \($0) of \(repeats)") }
    line.clear()
    let conditions = loaded.conditions
    if json { return try printJSON(Joined(["saving": result], Joined(options, conditions))) }
    printTitle(conditions, batch: batch)
    printSaving(result)
  }
}
