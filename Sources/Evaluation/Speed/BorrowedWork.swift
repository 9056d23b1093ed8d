// What remains of a model's work where some of its layers borrow their attention: the arithmetic by which a saving is
// predicted (the technique is IAM's, arXiv 2507.11953).
//
// Checked against cases counted by hand (`BorrowedWorkTests`).

import KindredAttention
import KindredCompute
import KindredTransformer

/// The share of each part's work that remains when a plan is in force.
///
/// A mapped layer computes no queries and keys, rotates none and stores no keys. In prefill, where arithmetic bounds,
/// `2 · n · H · D` operations of QKᵀ become `2 · n · d` for each distinct lent head, and as many of PV become
/// `2 · n · D` for each distinct (lent head, KV group). In decode, where memory bounds, the bytes of keys go, and those
/// of values where far positions count nothing. Near windows do not grow with the context and are left out, and so is
/// what a prompt's last layer stores where it computes nothing else.
public struct BorrowedWork: Sendable {
  /// The steps whose work is counted.
  public enum Steps: Sendable, Hashable {
    /// Reading `tokens`, of which the first `unmapped` establish the map and run as without it.
    case prefill(tokens: Int, unmapped: Int)
    /// Tokens that are all mapped.
    case decode
  }

  let plan: AttentionPlan
  /// The borrowing model's heads.
  let shape: AttentionShape
  /// Elements of a lending model's head, `d`.
  let smallDimension: Int
  /// Whether the last layer attends for a prompt's rows; of a whole model it only stores their keys and values.
  let lastLayerAttends: Bool

  public init(plan: AttentionPlan, shape: AttentionShape, smallDimension: Int, lastLayerAttends: Bool) {
    self.plan = plan
    self.shape = shape
    self.smallDimension = smallDimension
    self.lastLayerAttends = lastLayerAttends
  }

  /// The share of a part's work that remains, 0…1 or above.
  ///
  /// - Parameters:
  ///   - part: a part of the unmapped model's work.
  ///   - steps: the steps whose work is counted.
  ///   - products: the matrices of ``ModelPart/queryKeyValue``, any one layer's.
  public func remaining(_ part: ModelPart, in steps: Steps, products: [ProfiledProduct] = []) -> Double {
    switch part {
    case .queryKeyValue:
      1 - rowShare(steps) * mappedLayerShare(steps) * (1 - valueShare(of: products, in: steps))
    case .rotation, .keyStorage, .headNorm:
      1 - rowShare(steps) * mappedLayerShare(steps)
    case .attention:
      1 - pairShare(steps) * (1 - attentionShare(steps))
    default: 1
    }
  }

  /// The layers that attend.
  private func layers(_ steps: Steps) -> Range<Int> {
    plan.units.indices.dropLast(steps == .decode || lastLayerAttends ? 0 : 1)
  }

  /// The share of layers that use no queries and keys of their own.
  private func mappedLayerShare(_ steps: Steps) -> Double {
    let layers = layers(steps)
    return Double(layers.count { !plan.usesKeys(layer: $0) }) / Double(max(1, layers.count))
  }

  /// The share of rows that run mapped.
  private func rowShare(_ steps: Steps) -> Double {
    guard case .prefill(let tokens, let unmapped) = steps else { return 1 }
    return 1 - Double(min(unmapped, tokens)) / Double(tokens)
  }

  /// The share of (row, position) pairs whose row runs mapped.
  private func pairShare(_ steps: Steps) -> Double {
    guard case .prefill(let tokens, let unmapped) = steps else { return 1 }
    func pairs(_ rows: Int) -> Double { Double(rows) * Double(rows + 1) / 2 }
    return 1 - pairs(min(unmapped, tokens)) / pairs(tokens)
  }

  /// What V is of Q, K and V together, in elements or in bytes.
  private func valueShare(of products: [ProfiledProduct], in steps: Steps) -> Double {
    func work(_ product: ProfiledProduct) -> Double {
      let matrix = product.matrix
      return Double(steps == .decode ? matrix.byteCount : matrix.outputs * matrix.inputs)
    }
    // Keys and values have matrices of one shape, and values are never stored the less precisely.
    let keyRows = shape.kvHeads * shape.headDimension
    let all = products.reduce(0) { $0 + work($1) }
    guard let value = products.filter({ $0.matrix.outputs == keyRows }).map(work).max(), all > 0 else { return 1 }
    return value / all
  }

  /// What attention takes of a mapped row, of an unmapped row's, over all layers.
  private func attentionShare(_ steps: Steps) -> Double {
    let shares = layers(steps).map { layer in
      if steps == .decode { return plan.units[layer].reduce(0) { $0 + Self.byteShare($1) } / Double(shape.kvHeads) }
      let loans = plan.loans(layer: layer, groupSize: shape.groupSize)
      let tiles = loans.reduce(0) { sum, loan in
        if case .small = loan.lender { sum + smallDimension } else { sum + shape.headDimension }
      }
      let products = loans.reduce(0) { $0 + $1.borrowers.count }
      let own = plan.ownGroups(layer: layer).count
      let ownWork = 2 * own * shape.groupSize * shape.headDimension
      return Double(ownWork + tiles + products * shape.headDimension)
        / Double(2 * shape.queryHeads * shape.headDimension)
    }
    return shares.reduce(0, +) / Double(max(1, shares.count))
  }

  /// What a unit reads of keys and values at far positions, of an ordinary unit's.
  private static func byteShare(_ unit: AttentionPlan.Unit) -> Double {
    switch unit {
    case .own: 1
    case .mapped(_, .nothing): 0
    case .mapped: 0.5
    }
  }
}
