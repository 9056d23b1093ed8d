// The plan: where each unit of the large model takes its attention from.
//
// A unit is a KV head of a layer, the finest part at which keys can be dropped (`ALGORITHMS.md` §3–4 of the design).

/// One attention head of a model.
public struct HeadIndex: Sendable, Hashable, Codable {
  public var layer: Int
  public var head: Int

  public init(layer: Int, head: Int) {
    self.layer = layer
    self.head = head
  }
}

/// For every (layer, KV head) of the large model, the source of its attention weights.
public struct AttentionPlan: Sendable, Hashable {
  /// Where a unit's attention weights come from.
  public enum Source: Sendable, Hashable {
    /// Its own queries and keys: ordinary attention.
    case own
    /// Heads of the small model, one for each query head of the unit (IAM): no keys are stored.
    case borrowed([HeadIndex])
  }

  /// `[layer][KV head]`.
  public let sources: [[Source]]

  public init(sources: [[Source]]) { self.sources = sources }

  /// The plan of an ordinary model.
  public static func own(layers: Int, kvHeads: Int) -> AttentionPlan {
    AttentionPlan(sources: Array(repeating: Array(repeating: .own, count: kvHeads), count: layers))
  }

  /// The KV heads of a layer that use their own keys.
  public func ownGroups(layer: Int) -> [Int] {
    sources[layer].indices.filter { sources[layer][$0] == .own }
  }

  /// Units that borrow.
  public var borrowedUnits: [(layer: Int, group: Int)] {
    sources.indices.flatMap { layer in
      sources[layer].indices.filter { sources[layer][$0] != .own }.map { (layer, $0) }
    }
  }

  /// The lent heads that a layer uses, in a fixed order, each with the query heads it serves by KV head.
  ///
  /// Query heads of one KV head that use the same lent head have the same output, so each pair stands once.
  public func loans(layer: Int) -> [(lender: HeadIndex, borrowers: [(group: Int, queryHeads: [Int])])] {
    var loans: [(lender: HeadIndex, borrowers: [(group: Int, queryHeads: [Int])])] = []
    for (group, source) in sources[layer].enumerated() {
      guard case .borrowed(let heads) = source else { continue }
      for (index, lender) in heads.enumerated() {
        let queryHead = group * heads.count + index
        guard let loan = loans.firstIndex(where: { $0.lender == lender }) else {
          loans.append((lender, [(group, [queryHead])]))
          continue
        }
        if let borrower = loans[loan].borrowers.firstIndex(where: { $0.group == group }) {
          loans[loan].borrowers[borrower].queryHeads.append(queryHead)
        } else {
          loans[loan].borrowers.append((group, [queryHead]))
        }
      }
    }
    return loans
  }

  /// All lent heads in use, by layer and head.
  public var lentHeads: [HeadIndex] {
    let used = sources.joined().reduce(into: Set<HeadIndex>()) { used, source in
      if case .borrowed(let heads) = source { used.formUnion(heads) }
    }
    return used.sorted { ($0.layer, $0.head) < ($1.layer, $1.head) }
  }

  /// Layers of the small model that must run: up to the highest one in use.
  public var lenderDepth: Int { (lentHeads.last?.layer ?? -1) + 1 }
}
