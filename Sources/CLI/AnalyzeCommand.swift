// `kindred analyze`: what the paper shows of attention maps, measured on any pair of models.

import ArgumentParser
import Kindred
import KindredEvaluation

struct AnalyzeCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "analyze",
    abstract: "Measures on a pair of models what IAM's paper (arXiv 2507.11953) shows.",
    discussion: """
      Each analysis prints its figures with the paper's beside, and writes CSV, JSON and, where gnuplot is present, \
      SVG files into a folder. The recipe is the paper's: maps established on the first --establish-tokens tokens.

      For example:
        kindred analyze similarity -m qwen2.5-coder-1.5b -s qwen2.5-coder-0.5b --text book.txt -o similarity
        kindred analyze layers -m qwen2.5-coder-1.5b -s qwen2.5-coder-0.5b --text book.txt --text code.py -o layers
      """,
    subcommands: [
      SimilarityCommand.self, LayersCommand.self, StrategiesCommand.self, MetricsCommand.self,
      ConsistencyCommand.self, UsageCommand.self,
    ])
}

struct SimilarityCommand: AnalysisCommand {
  static let configuration = CommandConfiguration(
    commandName: "similarity",
    abstract: "Compares every head of the large model with every head of the small one.",
    discussion: """
      The cosine of their attention maps over the first tokens of the text, head by head and as means of layers \
      (the paper's Figs. 9 and 10). The mean cosine of a head with its most alike small head says how well the pair \
      suits: a map can be no better.
      """)

  @OptionGroup var options: AnalyzeOptions

  @Option(parsing: .unconditional, help: "Stretches of --establish-tokens tokens over which maps are compared.")
  var windows = 1

  var analysis: any Analysis {
    var analysis = SimilarityAnalysis()
    analysis.windows = windows
    return analysis
  }
}

struct LayersCommand: AnalysisCommand {
  static let configuration = CommandConfiguration(
    commandName: "layers",
    abstract: "Maps one part of the large model after the other, and measures what each costs.",
    discussion: """
      Shows which layers can borrow (the paper's Fig. 2 and Table 2, which map one of ten blocks at a time). With a \
      second --text, the correlation between the two texts says whether layers that are harmless for one are so for \
      the other.
      """)

  @OptionGroup var options: AnalyzeOptions
  @OptionGroup var window: AnalyzeWindowOptions

  @Option(parsing: .unconditional, help: "Blocks of consecutive layers (default: 10).")
  var blocks: Int?

  @Option(help: "What is mapped at a time instead of a block.")
  var unit: LayerUnit?

  /// A part that is mapped by itself.
  enum LayerUnit: String, ExpressibleByArgument, CaseIterable {
    case layer
    /// A KV head of a layer.
    case group
  }

  static var severalTexts: Bool { true }

  func validate() throws {
    if blocks != nil, unit != nil { throw ValidationError("expected --blocks or --unit, found both") }
    try validateAnalysis()
  }

  var analysis: any Analysis {
    var analysis = LayerAnalysis()
    switch unit {
    case .layer: analysis.unit = .layer
    case .group: analysis.unit = .group
    case nil: analysis.unit = .blocks(blocks ?? 10)
    }
    analysis.windows = window.windows
    return analysis
  }
}

struct StrategiesCommand: AnalysisCommand {
  static let configuration = CommandConfiguration(
    commandName: "strategies",
    abstract: "Compares the orders in which layers are chosen.",
    discussion: """
      Perplexity and divergence by strategy, with 10 to 50% of the layers mapped (the paper's Fig. 11 and Table 4).
      """)

  @OptionGroup var options: AnalyzeOptions
  @OptionGroup var window: AnalyzeWindowOptions

  @Option(
    name: .customLong("strategy"),
    help: ArgumentHelp("A strategy; may be given several times (default: all).", valueName: "strategy"))
  var strategies: [LayerStrategy] = []

  @Option(
    name: .customLong("ratio"), parsing: .unconditionalSingleValue,
    help: ArgumentHelp("A share of layers; may be given several times (default: 0.1 to 0.5).", valueName: "share"))
  var ratios: [Double] = []

  var analysis: any Analysis {
    var analysis = StrategyAnalysis()
    if !strategies.isEmpty { analysis.strategies = strategies }
    if !ratios.isEmpty { analysis.ratios = ratios }
    analysis.windows = window.windows
    return analysis
  }
}

struct MetricsCommand: AnalysisCommand {
  static let configuration = CommandConfiguration(
    commandName: "metrics",
    abstract: "Compares the measures by which heads are matched.",
    discussion: "Log-perplexity with the latter half of the layers mapped, by measure (the paper's Table 1).")

  @OptionGroup var options: AnalyzeOptions
  @OptionGroup var window: AnalyzeWindowOptions

  @Option(
    parsing: .unconditional, help: ArgumentHelp("Share of layers, from the last one backwards.", valueName: "share"))
  var ratio = 0.5

  var analysis: any Analysis {
    var analysis = MeasureAnalysis()
    analysis.ratio = ratio
    analysis.windows = window.windows
    return analysis
  }
}

struct ConsistencyCommand: AnalysisCommand {
  static let configuration = CommandConfiguration(
    commandName: "consistency",
    abstract: "Shows whether the prompt's map stays the best one while text is generated.",
    discussion: """
      The large model continues the first tokens of the text; maps are then compared over the rows of what it \
      generated (the paper's Fig. 3). Where heads lose much cosine, --remap-every helps the other commands.
      """)

  @OptionGroup var options: AnalyzeOptions

  @Option(parsing: .unconditional, help: "Tokens to generate.")
  var tokens = 500

  @Option(parsing: .unconditional, help: "Generated tokens between two points of the curve.")
  var every = 100

  @Option(parsing: .unconditional, help: "What logits are divided by; 0 takes the most likely token each time.")
  var temperature: Float = 0.8

  @Option(help: "The seed of the draws.")
  var seed: UInt64 = 0

  var analysis: any Analysis {
    var analysis = ConsistencyAnalysis()
    analysis.tokens = tokens
    analysis.every = every
    analysis.temperature = temperature
    analysis.seed = seed
    return analysis
  }
}

struct UsageCommand: AnalysisCommand {
  static let configuration = CommandConfiguration(
    commandName: "usage",
    abstract: "Counts how often each small head is the most alike one.",
    discussion: """
      A few small heads serve many large ones (the paper's Fig. 12): what they share has to be computed only once.
      """)

  @OptionGroup var options: AnalyzeOptions

  @Option(
    parsing: .unconditional,
    help: "Stretches of --establish-tokens tokens of the text, each with a map of its own.")
  var windows = 8

  var analysis: any Analysis {
    var analysis = UsageAnalysis()
    analysis.windows = windows
    return analysis
  }
}
