// The paper's recipe (IAM, Zhao, Li, Zhao, ACL 2025, arXiv 2507.11953): the map from each head of the large model to
// the head of the small one with the most alike attention on the first tokens of the prompt.
//
// Checked against an independent PyTorch version (`Tests/AttentionMappingTests/make_fixtures.py`).

import KindredAttention
import KindredCompute
import KindredKVStore

/// How the paper finds its map.
public struct PaperRecipe: Sendable, Hashable {
  /// The most tokens on which a map can be established: maps grow with their square.
  public static let establishmentLimit = 1024

  /// The mapped layers.
  public var layers: LayerSelection
  /// The KV heads of the mapped layers that borrow; all where `nil`.
  package var groups: Set<Int>?
  /// By what heads are compared.
  public var similarity = SimilarityMeasure.cosine
  /// τ_t: tokens of the prompt on which the map is established; they run unmapped.
  public var establishmentTokens = 100
  /// τ_e: the fewest tokens on which a map is established. With a shorter prompt the large model first generates
  /// alone until there are that many.
  public var minimumTokens = 20
  /// Where it is set, small heads are drawn by this seed instead of compared: a control, which says what the comparison
  /// is worth.
  public var drawSeed: UInt64?
  /// After how many generated tokens the map is found anew, on the last τ_t tokens; never where `nil`.
  public var remapEvery: Int?

  public init(layers: LayerSelection) { self.layers = layers }

  /// Says what is wrong with the numbers of tokens, if anything is.
  public var problem: String? {
    if !(1...Self.establishmentLimit).contains(establishmentTokens) {
      return "establish-tokens: expected 1 to \(Self.establishmentLimit), found \(establishmentTokens)"
    }
    if !(1...establishmentTokens).contains(minimumTokens) {
      return "minimum-tokens: expected 1 to the \(establishmentTokens) that establish a map, found \(minimumTokens)"
    }
    if let remapEvery, remapEvery < 1 { return "remap-every: expected at least 1 token, found \(remapEvery)" }
    return nil
  }

  /// Refuses numbers of tokens that make no sense, and layers that the large model does not have.
  ///
  /// - Parameter layerCount: layers of the large model.
  /// - Throws: `RecipeError` or `LayerSelection.SelectionError`.
  public func check(layerCount: Int) throws {
    if let problem { throw RecipeError(description: problem) }
    if try layers.layers(of: layerCount) == nil, drawSeed != nil {
      throw RecipeError(description: "strategy: expected one that needs no comparison for heads that are drawn")
    }
  }

  /// The plan for a prompt, from the attention of both models over its first tokens.
  ///
  /// - Parameters:
  ///   - large: all layers of the large model's pass.
  ///   - small: all layers of the small model's pass over the same tokens.
  ///   - layerCounts: layers of the large and of the small model.
  ///   - runs: the rows in each model's cache.
  ///   - backend: where both models run.
  public func plan<B: Backend>(
    large: LentAttention<B>, small: LentAttention<B>, layerCounts: (large: Int, small: Int),
    runs: (large: SequenceRows, small: SequenceRows), backend: B
  ) throws -> AttentionPlan {
    let chosen = try layers.layers(of: layerCounts.large)
    if let drawSeed, let chosen {
      return drawnPlan(seed: drawSeed, layers: chosen, layerCounts: layerCounts, shapes: (large.shape, small.shape))
    }
    let compared = chosen ?? Array(0..<layerCounts.large)
    let sums = try HeadSimilarity(similarity, backend: backend).sums(
      of: large, layers: compared, with: small, layerCount: layerCounts.small, runs: runs)
    return try plan(sums, layers: compared, layerCount: layerCounts.large, shapes: (large.shape, small.shape))
  }

  /// The plan that follows from sums over the maps of the listed layers: those of the selection, or all where it asks
  /// for the most alike.
  package func plan(
    _ sums: SimilaritySums, layers compared: [Int], layerCount: Int,
    shapes: (large: AttentionShape, small: AttentionShape)
  ) throws -> AttentionPlan {
    let (groupSize, heads) = (shapes.large.groupSize, shapes.large.queryHeads)
    let mapped = compared.count < layerCount ? compared : try layers.layers(ranking: ranking(sums, heads: heads))
    var plan = AttentionPlan.own(layers: layerCount, kvHeads: shapes.large.kvHeads)
    for (index, layer) in compared.enumerated() where mapped.contains(layer) {
      for group in plan.units[layer].indices where groups?.contains(group) ?? true {
        let first = index * heads + group * groupSize
        plan.units[layer][group] = .mapped(
          near: nil, far: .small(mixture(sums, heads: first..<first + groupSize, smallHeads: shapes.small.queryHeads)))
      }
    }
    return plan
  }

  /// The same units with small heads by chance.
  private func drawnPlan(
    seed: UInt64, layers: [Int], layerCounts: (large: Int, small: Int),
    shapes: (large: AttentionShape, small: AttentionShape)
  ) -> AttentionPlan {
    var generator = SeededGenerator(seed: seed)
    var plan = AttentionPlan.own(layers: layerCounts.large, kvHeads: shapes.large.kvHeads)
    for layer in layers {
      for group in plan.units[layer].indices where groups?.contains(group) ?? true {
        plan.units[layer][group] = .borrowed(
          (0..<shapes.large.groupSize).map { _ in
            HeadIndex(
              layer: .random(in: 0..<layerCounts.small, using: &generator),
              head: .random(in: 0..<shapes.small.queryHeads, using: &generator))
          })
      }
    }
    return plan
  }

  /// The best small head of each large one; with the norm, its rows count as the ratio of the maps' norms.
  private func mixture(_ sums: SimilaritySums, heads: Range<Int>, smallHeads: Int) -> HeadMixture {
    let best = heads.map(sums.best)
    var mixture = HeadMixture(single: best.map { HeadIndex(layer: $0 / smallHeads, head: $0 % smallHeads) })
    guard similarity == .cosineNorm else { return mixture }
    for (row, head) in heads.enumerated() {
      let ratio = Float(sums.normRatio(head, best[row]))
      mixture.weights[row] = mixture.weights[row].map { $0 * ratio }
    }
    return mixture
  }

  /// All layers, those first whose heads are most alike to small ones; of equals the later one.
  private func ranking(_ sums: SimilaritySums, heads: Int) -> [Int] {
    let means = (0..<sums.largeCount / heads).map { sums.meanBest($0 * heads..<($0 + 1) * heads) }
    return means.indices.sorted {
      means[$0] == means[$1] ? $0 > $1 : (means[$0] > means[$1]) != similarity.isDistance
    }
  }
}

/// What is wrong with a recipe.
public struct RecipeError: Error, Sendable, Hashable, CustomStringConvertible {
  public let description: String

  package init(description: String) { self.description = description }
}
