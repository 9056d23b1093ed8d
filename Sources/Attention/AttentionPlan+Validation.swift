// Whether a plan can run on two models: nothing here trusts where a plan comes from.

import KindredCompute

/// Layers of attention as a plan sees a model.
public struct ModelShape: Sendable, Hashable {
  /// Layers, `L`.
  public var layerCount: Int
  /// The heads of each layer.
  public var attention: AttentionShape

  public init(layerCount: Int, attention: AttentionShape) {
    self.layerCount = layerCount
    self.attention = attention
  }
}

/// What is wrong with a plan.
public struct PlanError: Error, Sendable, Hashable, CustomStringConvertible {
  /// The file that holds the plan, where it comes from one.
  public var path: String?
  /// The layer of the unit that is wrong.
  public var layer: Int?
  /// The unit's KV head.
  public var group: Int?
  /// What was expected and what was found.
  public var problem: String

  public init(layer: Int? = nil, group: Int? = nil, problem: String) {
    self.layer = layer
    self.group = group
    self.problem = problem
  }

  public var description: String {
    let unit = [layer.map { "layer \($0)" }, group.map { "KV head \($0)" }].compactMap(\.self)
    let place = [path, "plan", unit.isEmpty ? nil : unit.joined(separator: ", ")].compactMap(\.self)
    return (place + [problem]).joined(separator: ": ")
  }

  /// The same of a plan that the file at `path` holds.
  package func of(_ path: String) -> PlanError {
    var error = self
    error.path = path
    return error
  }
}

extension AttentionPlan {
  /// The most positions of a window, and the most sinks.
  public static let windowLimit = 1 << 24
  /// The most small heads of one mixture.
  public static let mixtureLimit = 64

  /// Refuses a plan that does not fit the models.
  ///
  /// - Parameters:
  ///   - large: the model that borrows.
  ///   - small: the model that lends; `nil` where there is none.
  public func validate(large: ModelShape, small: ModelShape?) throws(PlanError) {
    guard units.count == large.layerCount else {
      throw PlanError(problem: "expected \(large.layerCount) layers, found \(units.count)")
    }
    for (layer, groups) in units.enumerated() {
      guard groups.count == large.attention.kvHeads else {
        throw PlanError(layer: layer, problem: "expected \(large.attention.kvHeads) KV heads, found \(groups.count)")
      }
      for group in groups.indices {
        if let problem = problem(layer: layer, group: group, large: large, small: small) {
          throw PlanError(layer: layer, group: group, problem: problem)
        }
      }
    }
  }

  /// What is wrong with one unit.
  private func problem(layer: Int, group: Int, large: ModelShape, small: ModelShape?) -> String? {
    guard case .mapped(let near, let far) = units[layer][group] else { return nil }
    if let near {
      guard (1...Self.windowLimit).contains(near.positions) else {
        return "window: expected 1 to \(Self.windowLimit) positions, found \(near.positions)"
      }
      guard (0...Self.windowLimit).contains(near.sinks) else {
        return "sinks: expected 0 to \(Self.windowLimit) positions, found \(near.sinks)"
      }
    }
    switch far {
    case .nothing:
      return near == nil ? "expected a near window or a far source, found neither" : nil
    case .layer(let lower):
      guard (0..<layer).contains(lower) else {
        return "expected rows of a lower layer, 0 to \(layer - 1), found layer \(lower)"
      }
      guard units[lower][group] == .own else {
        return "expected rows of a layer with keys of its own, found the mapped layer \(lower)"
      }
      return nil
    case .small(let mixture):
      guard let small else { return "expected a small model to borrow from, found none" }
      return mixture.problem(groupSize: large.attention.groupSize, small: small)
    }
  }
}

extension HeadMixture {
  /// What is wrong with a mixture for `groupSize` query heads.
  func problem(groupSize: Int, small: ModelShape) -> String? {
    guard (1...AttentionPlan.mixtureLimit).contains(heads.count) else {
      return "expected 1 to \(AttentionPlan.mixtureLimit) small heads, found \(heads.count)"
    }
    guard Set(heads).count == heads.count else { return "expected different small heads, found one twice" }
    for head in heads {
      guard (0..<small.layerCount).contains(head.layer), (0..<small.attention.queryHeads).contains(head.head) else {
        return "expected small heads of layers 0 to \(small.layerCount - 1) and heads 0 to "
          + "\(small.attention.queryHeads - 1), found layer \(head.layer), head \(head.head)"
      }
    }
    guard weights.count == groupSize, weights.allSatisfy({ $0.count == heads.count }) else {
      let columns = Set(weights.map(\.count)).sorted().map { "\($0)" }.joined(separator: " or ")
      return "expected \(groupSize) rows of \(heads.count) weights, found \(weights.count) of \(columns)"
    }
    guard weights.joined().allSatisfy(\.isFinite) else { return "expected finite weights, found others" }
    return nil
  }
}
