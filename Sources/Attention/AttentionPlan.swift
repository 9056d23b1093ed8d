// The plan: where each unit of the large model takes its attention from.
//
// A unit is a KV head of a layer, the finest part at which keys can be dropped. One type says what every technique needs:
// IAM (arXiv 2507.11953) and its mixtures, Shared Attention (arXiv 2407.12866), StreamingLLM (arXiv 2309.17453).

import KindredCompute

/// One attention head of a model.
public struct HeadIndex: Sendable, Hashable, Codable {
  /// Counted from 0, the lowest.
  public var layer: Int
  /// A query head of the layer, counted from 0.
  public var head: Int

  public init(layer: Int, head: Int) {
    self.layer = layer
    self.head = head
  }
}

/// Rows of a small model's heads as weighted sums, for the query heads of one unit.
public struct HeadMixture: Sendable, Hashable {
  /// The small heads in use, `k` different ones.
  public var heads: [HeadIndex]
  /// What each head counts for each query head, `[R][k]`. A convex mixture's weights are not negative and sum to 1, so
  /// that its rows sum to 1, too.
  public var weights: [[Float]]

  public init(heads: [HeadIndex], weights: [[Float]]) {
    self.heads = heads
    self.weights = weights
  }

  /// One small head for each query head, as in the paper.
  public init(single heads: [HeadIndex]) {
    var different: [HeadIndex] = []
    for head in heads where !different.contains(head) { different.append(head) }
    self.init(heads: different, weights: heads.map { head in different.map { $0 == head ? 1 : 0 } })
  }
}

/// For every (layer, KV head) of the large model, the source of its attention weights.
public struct AttentionPlan: Sendable, Hashable {
  /// Where a unit's attention weights come from.
  public enum Unit: Sendable, Hashable {
    /// Its own queries and keys at every position: ordinary attention.
    case own
    /// Its own queries and keys in a window, if any, and at the positions outside of it a source that needs no keys.
    ///
    /// With `m` the sum of the far weights, near weights are a softmax over the near logits times `1 − m` (0 where the
    /// far weights sum to more than 1).
    case mapped(near: NearWindow?, far: FarSource)

    /// One small head for each query head, and no keys: the paper's form.
    public static func borrowed(_ heads: [HeadIndex]) -> Unit {
      .mapped(near: nil, far: .small(HeadMixture(single: heads)))
    }

    /// The window of own keys that a mapped unit keeps.
    public var near: NearWindow? {
      if case .mapped(let near, _) = self { near } else { nil }
    }

    /// Whether the unit's own queries and keys are computed.
    public var usesKeys: Bool { self == .own || near != nil }
  }

  /// Where weights at far positions come from.
  public enum FarSource: Sendable, Hashable {
    /// The small model's rows (IAM).
    case small(HeadMixture)
    /// The rows of the same heads in a lower layer of the same model, which has keys of its own (Shared Attention).
    case layer(Int)
    /// Nowhere: far positions count nothing, and their values are not stored (StreamingLLM).
    case nothing
  }

  /// `[layer][KV head]`.
  public var units: [[Unit]]

  public init(units: [[Unit]]) { self.units = units }

  /// The plan of an ordinary model.
  public static func own(layers: Int, kvHeads: Int) -> AttentionPlan {
    AttentionPlan(units: Array(repeating: Array(repeating: .own, count: kvHeads), count: layers))
  }

  /// The KV heads of a layer with keys of their own at every position.
  public func ownGroups(layer: Int) -> [Int] {
    units[layer].indices.filter { units[layer][$0] == .own }
  }

  /// Whether any unit of a layer needs the layer's queries and keys.
  public func usesKeys(layer: Int) -> Bool { units[layer].contains(where: \.usesKeys) }

  /// Units that do not keep all their keys.
  public var mappedUnits: [(layer: Int, group: Int)] {
    units.indices.flatMap { layer in
      units[layer].indices.filter { units[layer][$0] != .own }.map { (layer, $0) }
    }
  }

  /// All heads of the small model in use, by layer and head.
  public var lentHeads: [HeadIndex] {
    let used = units.joined().reduce(into: Set<HeadIndex>()) { used, unit in
      if case .mapped(_, .small(let mixture)) = unit { used.formUnion(mixture.heads) }
    }
    return used.sorted { ($0.layer, $0.head) < ($1.layer, $1.head) }
  }

  /// Layers of the small model that must run: up to the highest one in use.
  public var lenderDepth: Int { (lentHeads.last?.layer ?? -1) + 1 }
}

// MARK: Loans

extension AttentionPlan {
  /// A head that lends its rows.
  public enum Lender: Sendable, Hashable {
    /// A head of the small model.
    case small(HeadIndex)
    /// A head of a lower layer of the large model itself.
    case large(HeadIndex)
  }

  /// All heads of the large model whose rows higher layers use, by layer and head.
  public func sharedHeads(groupSize: Int) -> [HeadIndex] {
    let shared = units.indices.flatMap { loans(layer: $0, groupSize: groupSize) }.reduce(into: Set<HeadIndex>()) {
      if case .large(let head) = $1.lender { $0.insert(head) }
    }
    return shared.sorted { ($0.layer, $0.head) < ($1.layer, $1.head) }
  }

  /// The heads whose rows a layer uses, in a fixed order, each with those whom it serves.
  ///
  /// Query heads of one KV head that use the same lent head use the same product of rows and values, so each pair
  /// stands once.
  ///
  /// - Parameters:
  ///   - layer: the borrowing layer.
  ///   - groupSize: its query heads of one KV head, `R`.
  public func loans(layer: Int, groupSize: Int) -> [(lender: Lender, borrowers: [Borrower])] {
    var loans: [(lender: Lender, borrowers: [Borrower])] = []
    func add(_ lender: Lender, _ borrower: Borrower) {
      guard !borrower.queryHeads.isEmpty else { return }
      if let loan = loans.firstIndex(where: { $0.lender == lender }) {
        loans[loan].borrowers.append(borrower)
      } else {
        loans.append((lender, [borrower]))
      }
    }
    for (group, unit) in units[layer].enumerated() {
      guard case .mapped(_, let far) = unit else { continue }
      switch far {
      case .small(let mixture):
        let firstHead = group * groupSize
        for (index, head) in mixture.heads.enumerated() {
          let users = mixture.weights.indices.filter { mixture.weights[$0][index] != 0 }
          add(
            .small(head),
            Borrower(
              group: group, queryHeads: users.map { firstHead + $0 }, weights: users.map { mixture.weights[$0][index] })
          )
        }
      case .layer(let lower):
        for head in group * groupSize..<(group + 1) * groupSize {
          add(.large(HeadIndex(layer: lower, head: head)), Borrower(group: group, queryHeads: [head], weights: [1]))
        }
      case .nothing: break
      }
    }
    return loans
  }
}
