// Plan files: what is written is read, and nothing that is wrong gets through.

import Foundation
import KindredAttention
import KindredAttentionMapping
import KindredCompute
import KindredModelFiles
import Testing

@Suite struct PlanFileTests {
  static let large = PlannedModel(
    name: "large", shape: ModelShape(layerCount: 3, attention: .init(queryHeads: 4, kvHeads: 2, headDimension: 8)),
    vocabulary: "00ff")
  static let small = PlannedModel(
    name: "small", shape: ModelShape(layerCount: 2, attention: .init(queryHeads: 2, kvHeads: 1, headDimension: 4)),
    vocabulary: "00ff")

  static let plan: AttentionPlan = {
    let mixture = HeadMixture(
      heads: [HeadIndex(layer: 1, head: 0), HeadIndex(layer: 0, head: 1)], weights: [[0.1, 0.9], [1, 0]])
    let window = NearWindow(positions: 64, sinks: 4)
    return AttentionPlan(units: [
      [.own, .own],
      [.mapped(near: window, far: .small(mixture)), .mapped(near: nil, far: .small(mixture))],
      [.mapped(near: nil, far: .layer(0)), .mapped(near: NearWindow(positions: 16), far: .nothing)],
    ])
  }()

  static let file = PlanFile(large: large, small: small, plan: plan, notes: ["made by": "a test"])

  func temporaryPath() -> String { NSTemporaryDirectory() + "kindred-plan-\(UUID().uuidString).json" }

  @Test func filesAreReadAsWritten() throws {
    let path = temporaryPath()
    defer { try? FileManager.default.removeItem(atPath: path) }
    try Self.file.write(to: path)
    #expect(try PlanFile(path: path) == Self.file)
    // Writing goes over what was there.
    var other = Self.file
    other.plan.units[1][0] = .own
    try other.write(to: path)
    #expect(try PlanFile(path: path) == other)
  }

  @Test func plansThatFitNothingAreNotWritten() {
    var wrong = Self.file
    wrong.plan.units[1][0] = .mapped(near: nil, far: .nothing)
    let path = temporaryPath()
    #expect(throws: PlanError.self) { try wrong.write(to: path) }
    #expect(!FileManager.default.fileExists(atPath: path))
    #expect(throws: ModelFileError.self) { try Self.file.write(to: "/no/such/folder/plan.json") }
  }

  @Test func otherModelsAreRefusedWithWhatDiffers() throws {
    try Self.file.validate(large: Self.large, small: Self.small)
    var random = Self.small
    random.vocabulary = nil
    random.name = "random"
    try Self.file.validate(large: Self.large, small: random)
    func problem(_ large: PlannedModel, _ small: PlannedModel?) -> String {
      do {
        try Self.file.validate(large: large, small: small)
        return ""
      } catch { return error.description }
    }
    var other = Self.large
    other.shape.layerCount = 4
    other.shape.attention.kvHeads = 4
    #expect(problem(other, Self.small).contains("expected 3 layers, found 4; expected 2 KV heads, found 4"))
    other = Self.small
    other.vocabulary = "ab"
    #expect(problem(Self.large, other).contains("small model than small, small: expected vocabulary 00ff, found ab"))
    #expect(problem(Self.large, nil).contains("found none"))
  }

  /// One change to the text of a good file, and what the error says.
  @Test(arguments: [
    ("\"version\":1", "\"version\":2", "version: expected 1, found 2"),
    ("\"version\":1", "\"version\":\"1\"", "version: expected an integer"),
    ("kindred-plan", "other", "format: expected \"kindred-plan\", found \"other\""),
    ("\"positions\":64", "\"positions\":0", "units[1][0].near.positions: expected an integer from 1"),
    ("\"positions\":64", "\"positions\":99999999999999999999", "units[1][0].near.positions"),
    ("\"sinks\":4", "\"sinks\":-4", "units[1][0].near.sinks"),
    ("[[1,0],[0,1]]", "[[1,0],[0,7]]", "layer 1, KV head 0: expected small heads"),
    ("[[1,0],[0,1]]", "[[1,0],[0]]", "units[1][0].far.heads[1]: expected a layer and a head, found 1"),
    ("[[1,0],[0,1]]", "[[1,0],[0,\"x\"]]", "units[1][0].far.heads[1]: expected integers"),
    ("[[1,0],[0,1]]", "[]", "1 to 64 small heads"),
    ("0.1,", "1e300,", "finite weights"),
    ("0.1,", "", "weights"),
    ("\"layer\":0", "\"layer\":2", "lower layer"),
    ("\"near\":\"none\"", "\"near\":\"some\"", "near: expected \"all\", \"none\" or a window, found \"some\""),
    ("\"nothing\"", "\"something\"", "far: expected \"nothing\", a layer or heads"),
    ("\"kv_heads\":2", "\"kv_heads\":0", "large.kv_heads: expected an integer from 1"),
    ("\"kv_heads\":2", "\"kv_heads\":3", "large.query_heads: expected a multiple of 3"),
    ("\"layers\":3", "\"layers\":4", "expected 4 layers, found 3"),
    ("\"units\":[", "\"units\":[[{\"near\":\"all\"}],", "expected 3 layers, found 4"),
    ("\"units\"", "\"parts\"", "units: expected an array"),
    ("{", "", "JSON"),
  ])
  func wrongFilesGetALine(old: String, new: String, problem: String) throws {
    let path = temporaryPath()
    defer { try? FileManager.default.removeItem(atPath: path) }
    try Self.file.write(to: path)
    let text = try String(contentsOfFile: path, encoding: .utf8)
    let range = try #require(text.range(of: old))
    try text.replacingCharacters(in: range, with: new).write(toFile: path, atomically: true, encoding: .utf8)
    do {
      _ = try PlanFile(path: path)
      Issue.record("read \(new)")
    } catch {
      #expect("\(error)".hasPrefix(path) && "\(error)".contains(problem), "\(error)")
    }
  }

  @Test func missingFilesAreNamed() {
    #expect(throws: ModelFileError.self) { try PlanFile(path: "/no/such/plan.json") }
  }
}
