// What is compared: which model answers, and where its attention comes from.

import Foundation
import KindredAttention
import KindredAttentionMapping
import KindredCompute
import KindredGeneration
import KindredTransformer

/// A way of answering, as `--methods` names it.
public enum EvaluationMethod: Sendable, Hashable {
  /// `unmapped`: the large model alone.
  case unmapped
  /// `small`: the small model alone.
  case small
  /// `paper:R`: IAM's recipe for the share `R` of the layers.
  case paper(ratio: Double)
  /// `random:R`: the recipe's layers, with small heads drawn by the seed; a control.
  case random(ratio: Double)
  /// `shared:R`: Shared Attention (arXiv 2407.12866): each of the recipe's layers takes the rows of the nearest lower
  /// layer that keeps its keys. No small model runs.
  case shared(ratio: Double)
  /// `streaming:R`: StreamingLLM (arXiv 2309.17453): every layer sees 4 sinks and a window of the newest positions, and
  /// nothing else. Positions keep their numbers.
  ///
  /// With `k` of `L` layers mapped, `paper:R` lets the large model hold `1 − k / 2L` of its keys and values; sinks and
  /// window together are this share of a stated length: the context of a perplexity, and the middle one of all lengths
  /// of a task's prompts with their answers. The small model's cache is not counted: on small pairs it outweighs what is
  /// saved, and StreamingLLM would drop nothing.
  case streaming(ratio: Double)
  /// `plan:FILE`.
  case plan(path: String)

  /// What `--methods` takes, for people.
  public static let syntax = "unmapped, small, paper:R, random:R, shared:R, streaming:R (R from 0 to 1) or plan:FILE"

  /// Reads a method as the command line names it.
  public init(_ text: String) throws(MethodError) {
    let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
    switch (parts[0], parts.count) {
    case ("unmapped", 1): self = .unmapped
    case ("small", 1): self = .small
    case ("paper", 2): self = .paper(ratio: try Self.ratio(parts[1], in: text))
    case ("random", 2): self = .random(ratio: try Self.ratio(parts[1], in: text))
    case ("shared", 2): self = .shared(ratio: try Self.ratio(parts[1], in: text))
    case ("streaming", 2): self = .streaming(ratio: try Self.ratio(parts[1], in: text))
    case ("plan", 2) where !parts[1].isEmpty: self = .plan(path: parts[1])
    default: throw MethodError(description: "method: expected \(Self.syntax), found \"\(text)\"")
    }
  }

  private static func ratio(_ text: String, in method: String) throws(MethodError) -> Double {
    guard let ratio = Double(text), (0...1).contains(ratio) else {
      throw MethodError(description: "method \(method): expected a number from 0 to 1, found \"\(text)\"")
    }
    return ratio
  }

  /// As on the command line, a plan without its folders.
  public var name: String {
    switch self {
    case .unmapped: "unmapped"
    case .small: "small"
    case .paper(let ratio): "paper:\(ratio)"
    case .random(let ratio): "random:\(ratio)"
    case .shared(let ratio): "shared:\(ratio)"
    case .streaming(let ratio): "streaming:\(ratio)"
    case .plan(let path): "plan:\(URL(fileURLWithPath: path).lastPathComponent)"
    }
  }

  /// Whether the method cannot do without a small model. A plan's file says so itself.
  public var needsSmallModel: Bool {
    switch self {
    case .small, .paper, .random: true
    case .unmapped, .shared, .streaming, .plan: false
    }
  }
}

/// What is wrong with a method.
public struct MethodError: Error, Sendable, CustomStringConvertible {
  public let description: String

  public init(description: String) { self.description = description }
}

/// What methods run on.
public struct MethodModels<B: Backend>: Sendable {
  /// The model that is asked.
  public var large: LanguageModel<B>
  /// The model that lends, or is asked alone; `nil` without one.
  public var small: LanguageModel<B>?
  /// How the recipe finds its map; each method has a ratio of its own.
  public var recipe: PaperRecipe
  /// Draws the heads of `random:R`.
  public var seed: UInt64

  public init(
    large: LanguageModel<B>, small: LanguageModel<B>?, recipe: PaperRecipe = PaperRecipe(layers: .back(ratio: 0)),
    seed: UInt64 = 0
  ) {
    self.large = large
    self.small = small
    self.recipe = recipe
    self.seed = seed
  }
}

/// A method that can run.
public struct RunnableMethod<B: Backend>: Sendable {
  /// As on the command line: `paper:0.3`.
  public let name: String
  /// The model that answers.
  public let decoder: DecoderModel<B>
  /// How attention is borrowed; `nil` where it is not.
  public let mapping: Session<B>.Mapping?
  /// Whether the model that answers is the large one.
  var usesLargeModel = true
  /// What a reader of results should know.
  public var notes: [String] = []
  /// Tells apart methods of one name: a recipe's options, a plan's content.
  public let identity: String

  /// Whether this is the large model alone.
  var isUnmapped: Bool { mapping == nil && usesLargeModel }
}

extension MethodModels {
  /// The method on these models.
  ///
  /// - Parameters:
  ///   - method: the method.
  ///   - length: the tokens for which `streaming:R` chooses its window.
  /// - Throws: `MethodError`, `PlanError`, `VocabularyMismatch`, or what reading a plan throws.
  public func runnable(_ method: EvaluationMethod, length: Int) throws -> RunnableMethod<B> {
    if method.needsSmallModel, small == nil {
      throw MethodError(description: "method \(method.name): expected a small model (-s), found none")
    }
    switch method {
    case .unmapped: return runnable(method)
    case .small: return runnable(method, decoder: small?.decoder)
    case .paper(let ratio): return try runnable(method, recipe(ratio))
    case .random(let ratio):
      var drawn = recipe(ratio)
      drawn.drawSeed = seed
      return try runnable(method, drawn)
    case .shared(let ratio): return runnable(method, plan: try sharedPlan(ratio, of: method))
    case .streaming(let ratio):
      let window = try streamingWindow(ratio, length: length)
      var plan = ownPlan
      for layer in plan.units.indices {
        for group in plan.units[layer].indices { plan.units[layer][group] = .mapped(near: window, far: .nothing) }
      }
      var result = runnable(method, plan: plan)
      result.notes = [
        "\(window.sinks) sinks and the newest \(window.positions) positions: the large model's bytes of paper:\(ratio) at "
          + "\(length) tokens"
      ]
      return result
    case .plan(let path):
      let file = try PlanFile(path: path)
      do {
        return runnable(
          method, try MappingSource.plan(file).mapping(large: large, small: small), distinction: "\(file.plan)")
      } catch let error as PlanError { throw error.of(path) }
    }
  }

  private func runnable(_ method: EvaluationMethod, _ recipe: PaperRecipe) throws -> RunnableMethod<B> {
    try recipe.check(layerCount: large.decoder.configuration.layerCount)
    return runnable(
      method, try MappingSource.recipe(recipe).mapping(large: large, small: small), distinction: "\(recipe)")
  }

  private func runnable(_ method: EvaluationMethod, plan: AttentionPlan) -> RunnableMethod<B> {
    runnable(method, .planned(small: nil, plan: plan), distinction: "\(plan)")
  }

  private func runnable(
    _ method: EvaluationMethod, _ mapping: Session<B>.Mapping? = nil, decoder: DecoderModel<B>? = nil,
    distinction: String = ""
  ) -> RunnableMethod<B> {
    var hash = InputHash()
    hash.add(distinction)
    return RunnableMethod(
      name: method.name, decoder: decoder ?? large.decoder, mapping: mapping, usesLargeModel: decoder == nil,
      identity: "\(method.name)#\(hash.text)")
  }

  private var ownPlan: AttentionPlan {
    let configuration = large.decoder.configuration
    return .own(layers: configuration.layerCount, kvHeads: configuration.attention.kvHeads)
  }

  /// The recipe for a share of the layers, in the order of its strategy.
  private func recipe(_ ratio: Double) -> PaperRecipe {
    var recipe = recipe
    if case .share(let strategy, _) = recipe.layers {
      recipe.layers = .share(strategy, ratio: ratio)
    } else {
      recipe.layers = .back(ratio: ratio)
    }
    return recipe
  }

  private func sharedPlan(_ ratio: Double, of method: EvaluationMethod) throws -> AttentionPlan {
    var plan = ownPlan
    guard let mapped = try recipe(ratio).layers.layers(of: plan.units.count) else {
      throw MethodError(description: "method \(method.name): expected a --strategy that needs no comparison")
    }
    for layer in mapped {
      guard let lower = (0..<layer).last(where: { !mapped.contains($0) }) else {
        throw MethodError(
          description: "method \(method.name): expected a layer with keys of its own below every mapped one, "
            + "found none below layer \(layer)")
      }
      for group in plan.units[layer].indices { plan.units[layer][group] = .mapped(near: nil, far: .layer(lower)) }
    }
    return plan
  }

  private static var sinks: Int { 4 }

  private func streamingWindow(_ ratio: Double, length: Int) throws -> NearWindow {
    let layers = large.decoder.configuration.layerCount
    let share = 1 - Double(try recipe(ratio).layers.count(of: layers)) / Double(2 * layers)
    let kept = Int((share * Double(length)).rounded())
    return NearWindow(positions: max(1, kept - Self.sinks), sinks: Self.sinks)
  }
}
