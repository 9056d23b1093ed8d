import Foundation
import KindredAttention
import KindredAttentionMapping
import KindredCompute
import KindredEvaluation
import KindredGeneration
import Testing

@Suite struct EvaluationMethodTests {
  @Test(arguments: [
    ("unmapped", EvaluationMethod.unmapped), ("small", .small), ("paper:0.3", .paper(ratio: 0.3)),
    ("random:1", .random(ratio: 1)), ("shared:0.25", .shared(ratio: 0.25)), ("streaming:0", .streaming(ratio: 0)),
    ("plan:some/where.json", .plan(path: "some/where.json")), ("plan:a:b", .plan(path: "a:b")),
  ])
  func methodsAreRead(text: String, method: EvaluationMethod) throws {
    #expect(try EvaluationMethod(text) == method)
  }

  @Test(arguments: [
    "", "papers:0.3", "paper", "paper:", "paper:x", "paper:1.5", "paper:-1", "paper:nan", "unmapped:1", "plan:", "plan",
  ])
  func othersAreNamed(text: String) {
    #expect { try EvaluationMethod(text) } throws: { "\($0)".contains("expected") && "\($0)".contains("found \"") }
  }

  @Test func namesLeaveFoldersOut() {
    #expect(EvaluationMethod.plan(path: "some/where.json").name == "plan:where.json")
    #expect(EvaluationMethod.paper(ratio: 0.5).name == "paper:0.5")
  }

  let tiny: TinyModels

  init() throws { tiny = try TinyModels() }

  func plan(_ method: EvaluationMethod, length: Int = 100) throws -> AttentionPlan? {
    guard case .planned(_, let plan) = try tiny.models.runnable(method, length: length).mapping else { return nil }
    return plan
  }

  @Test func sharedLayersTakeTheNearestRows() throws {
    let plan = try #require(try plan(.shared(ratio: 0.67)))
    let rows = AttentionPlan.Unit.mapped(near: nil, far: .layer(0))
    #expect(plan.units == [[.own, .own], [rows, rows], [rows, rows]])
    #expect { try self.plan(.shared(ratio: 1)) } throws: { "\($0)".contains("found none below layer 0") }
  }

  /// One of three layers: the recipe leaves 5 of 6 parts of the large model's bytes.
  @Test func streamingHoldsAsManyBytes() throws {
    let plan = try #require(try plan(.streaming(ratio: 0.34), length: 240))
    let window = AttentionPlan.Unit.mapped(near: NearWindow(positions: 196, sinks: 4), far: .nothing)
    #expect(plan.units.joined().allSatisfy { $0 == window })
    var options = Session<CPUBackend>.Options()
    options.kvType = .f32
    func bytes(_ method: EvaluationMethod) throws -> Int {
      let session = try Session(
        decoder: tiny.models.large.decoder, mapping: tiny.models.runnable(method, length: 240).mapping,
        options: options)
      _ = try session.append((0..<240).map { Int32($0 * $0 % 90) })
      return session.kvBytes.large
    }
    // Blocks of 16 and pages of 64 round both.
    let (streaming, paper) = (try bytes(.streaming(ratio: 0.34)), try bytes(.paper(ratio: 0.34)))
    #expect(abs(streaming - paper) < paper / 10, "\(streaming) \(paper)")
  }

  /// The recipe's layers and its first tokens, but heads by chance: the same ones for a seed.
  @Test func randomMapsDifferInHeadsAlone() throws {
    func plan(seed: UInt64?) throws -> AttentionPlan {
      var models = tiny.models
      models.seed = seed ?? 0
      let method = EvaluationMethod.random(ratio: 0.67)
      let session = try Session(
        decoder: models.large.decoder,
        mapping: models.runnable(seed == nil ? .paper(ratio: 0.67) : method, length: 100).mapping)
      _ = try session.append((0..<39).map { Int32($0) })
      #expect(!session.plan.mappedUnits.isEmpty)
      return session.plan
    }
    let paper = try plan(seed: nil)
    let first = try plan(seed: 1)
    #expect(first.mappedUnits.map(\.layer) == paper.mappedUnits.map(\.layer))
    #expect(try plan(seed: 1) == first)
    #expect(try plan(seed: 2) != first && first != paper)
  }

  @Test func smallModelsAreAskedFor() throws {
    var models = tiny.models
    models.small = nil
    for method in [EvaluationMethod.small, .paper(ratio: 0.3), .random(ratio: 0.3)] {
      #expect(method.needsSmallModel)
      #expect { try models.runnable(method, length: 10) } throws: { "\($0)".contains("expected a small model (-s)") }
    }
    let plan = try tiny.planFile()
    let error = #expect(throws: PlanError.self) { try models.runnable(.plan(path: plan), length: 10) }
    #expect(error?.description.hasPrefix("\(plan): plan: ") == true)
    var recipe = models.recipe
    recipe.layers = .share(.mostSimilar, ratio: 0)
    models = tiny.models
    models.recipe = recipe
    for method in [EvaluationMethod.random(ratio: 0.3), .shared(ratio: 0.3)] {
      #expect { try models.runnable(method, length: 10) } throws: { "\($0)".contains("comparison") }
    }
  }
}
