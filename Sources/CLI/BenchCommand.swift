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
      """)

  @OptionGroup var models: ModelOptions

  @Option(help: "Tokens of each prompt.")
  var promptTokens = 512

  @Option(help: "Tokens generated after each prompt.")
  var generateTokens = 64

  @Option(help: "Sequences decoded together.")
  var batch = 1

  @Option(name: .customLong("repeat"), help: "Measured repetitions.")
  var repeats = 5

  @Flag(help: "Print the result as one JSON object.")
  var json = false

  func validate() throws {
    if let problem = options.problem { throw ValidationError(problem) }
  }

  private var options: SpeedOptions {
    var options = SpeedOptions()
    options.promptTokens = promptTokens
    options.generatedTokens = generateTokens
    options.batch = batch
    options.repeats = repeats
    return options
  }

  func run() throws {
    let loaded = try models.load()
    let line = StatusLine()
    let result = try SpeedBenchmark(
      loaded.large, lender: loaded.lender, options: options, sessionOptions: loaded.sessionOptions
    ).run { line.show($0 == 0 ? "warming up" : "repetition \($0) of \(repeats)") }
    line.clear()
    if json { return try printJSON(Joined(result, try loaded.conditions())) }
    let conditions = try loaded.conditions()
    let pair = conditions.smallModel.map { " + \($0), layers \(conditions.mappedLayers) mapped" } ?? ""
    let isRandom = conditions.model.hasPrefix("random:") || conditions.smallModel?.hasPrefix("random:") == true
    print("\(conditions.model)\(pair)\(isRandom ? " (random weights)" : "")")
    print("\(conditions.threads) threads, \(conditions.isa), KV \(conditions.kvType.rawValue), batch \(batch)\n")
    printRow("prefill of \(promptTokens), tokens/s", result.prefillTokensPerSecond)
    printRow("decode of \(generateTokens), tokens/s", result.decodeTokensPerSecond)
    printRow("time to first token, ms", result.ttftSeconds, factor: 1000)
    printRow("time per token, ms", result.tpotSeconds, factor: 1000)
    print("\nload \(conditions.loadSeconds.formatted(digits: 2)) s, weights \(byteText(conditions.weightBytes))")
    print("KV cache \(byteText(result.kv.total)), unmapped \(byteText(result.kv.unmapped))")
    if let peak = result.peakRSSBytes { print("peak resident memory \(byteText(peak))") }
  }

  private func printRow(_ name: String, _ value: MedianAndRange, factor: Double = 1) {
    let label = name.padding(toLength: 30, withPad: " ", startingAt: 0)
    let figures = [value.median, value.minimum, value.maximum].map { ($0 * factor).formatted(digits: 1) }
    print("\(label) \(figures[0])  (\(figures[1])–\(figures[2]))")
  }
}
