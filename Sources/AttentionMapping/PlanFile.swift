// Plans as files: JSON with a version and the shapes of the models that a plan was made for.
//
//   {"format": "kindred-plan", "version": 1,
//    "large": {"name": …, "layers": L, "query_heads": H, "kv_heads": G, "head_dimension": D, "vocabulary": hash},
//    "small": the same, or absent where the plan uses no small model,
//    "notes": {…: text},
//    "units": [layer][KV head] of {"near": "all"} or
//      {"near": "none" or {"positions": w, "sinks": s},
//       "far": "nothing" or {"layer": m} or {"heads": [[layer, head], …], "weights": [R][heads]}}}

import Foundation
import KindredAttention
import KindredCompute
import KindredModelFiles
import KindredTransformer

/// What a plan file says of a model.
public struct PlannedModel: Sendable, Hashable {
  /// How the user named the model; not compared.
  public var name: String
  /// Its layers and heads, which must be the same.
  public var shape: ModelShape
  /// A hash of the vocabulary; `nil` for random weights, which have none and fit any.
  public var vocabulary: String?

  /// - Parameter name: a path, of which the last part is kept: a plan is for others, too.
  public init(name: String, configuration: DecoderConfiguration, vocabulary: String?) {
    self.init(name: URL(fileURLWithPath: name).lastPathComponent, shape: configuration.shape, vocabulary: vocabulary)
  }

  public init(name: String, shape: ModelShape, vocabulary: String?) {
    self.name = name
    self.shape = shape
    self.vocabulary = vocabulary
  }

  /// What differs in another model, as `28 layers, found 24`; empty where a plan for this model fits the other.
  func differences(from other: PlannedModel) -> [String] {
    let (mine, others) = (shape.attention, other.shape.attention)
    let sizes = [
      ("layers", shape.layerCount, other.shape.layerCount), ("query heads", mine.queryHeads, others.queryHeads),
      ("KV heads", mine.kvHeads, others.kvHeads), ("elements of a head", mine.headDimension, others.headDimension),
    ]
    var differences = sizes.filter { $0.1 != $0.2 }.map { "\($0.1) \($0.0), found \($0.2)" }
    if let vocabulary, let found = other.vocabulary, vocabulary != found {
      differences.append("vocabulary \(vocabulary.onOneLine(limit: 20)), found \(found)")
    }
    return differences
  }
}

/// A plan with what it was made for.
public struct PlanFile: Sendable, Hashable {
  /// The version that is written, and the only one that is read.
  public static let version = 1
  private static let format = "kindred-plan"

  /// The model that borrows.
  public var large: PlannedModel
  /// `nil` where the plan uses no small model.
  public var small: PlannedModel?
  /// For every unit of the large model, where its attention comes from.
  public var plan: AttentionPlan
  /// How the plan was made, for people.
  public var notes: [String: String]

  public init(large: PlannedModel, small: PlannedModel?, plan: AttentionPlan, notes: [String: String] = [:]) {
    self.large = large
    self.small = small
    self.plan = plan
    self.notes = notes
  }

  /// Refuses other models than those that the plan was made for.
  ///
  /// - Throws: `PlanError` that says what differs.
  public func validate(large: PlannedModel, small: PlannedModel?) throws(PlanError) {
    func check(_ kind: String, _ planned: PlannedModel, _ found: PlannedModel) throws(PlanError) {
      let differences = planned.differences(from: found)
      guard differences.isEmpty else {
        throw PlanError(
          problem: "made for another \(kind) model than \(found.name), \(planned.name.onOneLine(limit: 80)): expected "
            + differences.joined(separator: "; expected "))
      }
    }
    try check("large", self.large, large)
    if let planned = self.small {
      guard let small else {
        throw PlanError(
          problem: "expected the small model that it was made for, \(planned.name.onOneLine(limit: 80)), found none")
      }
      try check("small", planned, small)
    }
    try plan.validate(large: large.shape, small: self.small == nil ? nil : small?.shape)
  }
}

// MARK: Place

extension PlanFile {
  /// Where a calibrated plan stands by default: beside the large model, named after both models and the ratio that was
  /// asked for.
  ///
  /// - Parameters:
  ///   - model: the large model's file or folder.
  ///   - small: the small model's file or folder.
  ///   - ratio: 0 to 1.
  public static func calibratedPath(model: String, small: String, ratio: Double) -> String {
    func name(_ path: String) -> String {
      let name = URL(fileURLWithPath: path).standardizedFileURL.lastPathComponent
      return name.hasSuffix(".gguf") ? String(name.dropLast(5)) : name
    }
    let folder = URL(fileURLWithPath: model).standardizedFileURL.deletingLastPathComponent()
    return folder.appendingPathComponent("\(name(model))+\(name(small))-\(ratio).plan.json").path
  }
}

// MARK: Reading

extension PlanFile {
  /// Reads and checks a plan.
  ///
  /// - Throws: `ModelFileError` with the key that is wrong, `PlanError` for a plan that fits no models of its shapes.
  public init(path: String) throws {
    let file = try JSONNode(path: path)
    guard try file.stringIfPresent("format") == Self.format else {
      throw file.error("format", "expected \"\(Self.format)\", found \(file.value("format") ?? .null)")
    }
    let version = try file.integer("version")
    guard version == Self.version else {
      throw file.error("version", "expected \(Self.version), found \(version)")
    }
    large = try PlannedModel(file.child("large"))
    small = file.child("small").value.isNull ? nil : try PlannedModel(file.child("small"))
    notes = try file.objectIfPresent("notes")?.reduce(into: [:]) { $0[$1.key] = $1.value.string } ?? [:]
    plan = AttentionPlan(
      units: try file.elements("units").map { layer in
        try layer.elements("").map { try AttentionPlan.Unit($0) }
      })
    do throws(PlanError) {
      try plan.validate(large: large.shape, small: small?.shape)
    } catch { throw error.of(path) }
  }
}

extension PlannedModel {
  /// Far above every published model, and low enough that no product of two sizes overflows.
  private static let sizeLimit = 1 << 20

  fileprivate init(_ node: JSONNode) throws {
    func size(_ key: String) throws -> Int { try node.integer(key, in: 1...Self.sizeLimit) }
    name = try node.string("name")
    shape = ModelShape(
      layerCount: try size("layers"),
      attention: AttentionShape(
        queryHeads: try size("query_heads"), kvHeads: try size("kv_heads"),
        headDimension: try size("head_dimension")))
    vocabulary = try node.stringIfPresent("vocabulary")
    guard shape.attention.queryHeads.isMultiple(of: shape.attention.kvHeads) else {
      throw node.error(
        "query_heads", "expected a multiple of \(shape.attention.kvHeads) KV heads, found \(shape.attention.queryHeads)"
      )
    }
  }
}

extension AttentionPlan.Unit {
  fileprivate init(_ node: JSONNode) throws {
    let near = node.child("near")
    switch near.value {
    case .string("all"): self = .own
    case .string("none"): self = .mapped(near: nil, far: try AttentionPlan.FarSource(node.child("far")))
    case .object:
      let window = NearWindow(
        positions: try near.integer("positions", in: 1...AttentionPlan.windowLimit),
        sinks: try near.integer("sinks", in: 0...AttentionPlan.windowLimit))
      self = .mapped(near: window, far: try AttentionPlan.FarSource(node.child("far")))
    default:
      throw node.error("near", "expected \"all\", \"none\" or a window, found \(near.value)")
    }
  }
}

extension AttentionPlan.FarSource {
  fileprivate init(_ node: JSONNode) throws {
    if case .string("nothing") = node.value {
      self = .nothing
    } else if node.value("layer") != nil {
      self = .layer(try node.integer("layer"))
    } else if node.value("heads") != nil {
      let heads = try node.elements("heads").map { head in
        let numbers = try head.integers("")
        guard numbers.count == 2 else {
          throw head.error("", "expected a layer and a head, found \(numbers.count) numbers")
        }
        return HeadIndex(layer: numbers[0], head: numbers[1])
      }
      let weights = try node.elements("weights").map { row in
        try row.elements("").map { Float(try $0.double("")) }
      }
      self = .small(HeadMixture(heads: heads, weights: weights))
    } else {
      throw node.error("", "expected \"nothing\", a layer or heads, found \(node.value)")
    }
  }
}

// MARK: Writing

extension PlanFile: Encodable {
  private enum CodingKeys: String, CodingKey { case format, version, large, small, notes, units }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(Self.format, forKey: .format)
    try container.encode(Self.version, forKey: .version)
    try container.encode(large, forKey: .large)
    try container.encodeIfPresent(small, forKey: .small)
    try container.encode(notes, forKey: .notes)
    try container.encode(plan.units.map { $0.map(\.json) }, forKey: .units)
  }

  /// Writes the plan, whole or not at all.
  ///
  /// - Throws: `PlanError` for a plan that would not be read again; what the file system says.
  public func write(to path: String) throws {
    try plan.validate(large: large.shape, small: small?.shape)
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    do {
      try encoder.encode(self).write(to: URL(fileURLWithPath: path).resolvingSymlinksInPath(), options: .atomic)
    } catch {
      throw ModelFileError(path: path, problem: "expected a place for a plan, found \(error.localizedDescription)")
    }
  }
}

extension PlannedModel: Encodable {
  private enum CodingKeys: String, CodingKey {
    case name, layers, vocabulary
    case queryHeads = "query_heads"
    case kvHeads = "kv_heads"
    case headDimension = "head_dimension"
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(name, forKey: .name)
    try container.encode(shape.layerCount, forKey: .layers)
    try container.encode(shape.attention.queryHeads, forKey: .queryHeads)
    try container.encode(shape.attention.kvHeads, forKey: .kvHeads)
    try container.encode(shape.attention.headDimension, forKey: .headDimension)
    try container.encodeIfPresent(vocabulary, forKey: .vocabulary)
  }
}

extension AttentionPlan.Unit {
  fileprivate var json: JSONValue {
    guard case .mapped(let near, let far) = self else { return .object(["near": .string("all")]) }
    let window = near.map { JSONValue.object(["positions": .integer($0.positions), "sinks": .integer($0.sinks)]) }
    return .object(["near": window ?? .string("none"), "far": far.json])
  }
}

extension AttentionPlan.FarSource {
  fileprivate var json: JSONValue {
    switch self {
    case .nothing: .string("nothing")
    case .layer(let layer): .object(["layer": .integer(layer)])
    case .small(let mixture):
      .object([
        "heads": .array(mixture.heads.map { .array([.integer($0.layer), .integer($0.head)]) }),
        // The shortest decimal of a 32-bit value is not that of the value widened to 64.
        "weights": .array(mixture.weights.map { .array($0.map { .number(Double($0.description) ?? Double($0)) }) }),
      ])
    }
  }
}
