// The paper's recipe (IAM, Zhao, Li, Zhao, ACL 2025, arXiv 2507.11953): the map from each head of the large model to
// the head of the small one with the most alike attention on the first tokens of the prompt.
//
// Checked against an independent PyTorch version (`Tests/AttentionMappingTests/make_fixtures.py`).

import KindredAttention
import KindredCompute
import KindredKVStore

/// How the paper finds its map.
public struct PaperRecipe: Sendable, Hashable {
  /// The mapped layers.
  public var layers: LayerSelection
  /// τ_t: tokens of the prompt on which the map is established; they run unmapped.
  public var establishmentTokens = 100
  /// τ_e: the fewest tokens on which a map is established. With a shorter prompt the large model first generates
  /// alone until there are that many.
  public var minimumTokens = 20

  public init(layers: LayerSelection) { self.layers = layers }

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
    let mapped = try layers.layers(of: layerCounts.large)
    let similarity = HeadSimilarity(backend: backend, candidates: small, layerCount: layerCounts.small, runs: runs)
    let best = try similarity.bestHeads(of: large, layers: mapped)
    let groupSize = large.shape.groupSize
    return AttentionPlan(
      units: (0..<layerCounts.large).map { layer in
        guard let heads = best[layer] else { return Array(repeating: .own, count: large.shape.kvHeads) }
        return (0..<large.shape.kvHeads).map { group in
          .borrowed(Array(heads[group * groupSize..<(group + 1) * groupSize]))
        }
      })
  }
}
