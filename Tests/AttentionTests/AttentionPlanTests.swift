import KindredAttention
import KindredCompute
import Testing

private func head(_ layer: Int, _ head: Int) -> HeadIndex { HeadIndex(layer: layer, head: head) }

@Suite struct AttentionPlanTests {
  let plan = AttentionPlan(units: [
    [.own, .own],
    [.borrowed([head(1, 0), head(0, 3), head(1, 0)]), .borrowed([head(0, 3), head(0, 2), head(0, 2)])],
    [.own, .borrowed([head(1, 0), head(1, 1), head(1, 1)])],
  ])

  @Test func eachLentHeadStandsOncePerKVHead() {
    let loans = plan.loans(layer: 1, groupSize: 3)
    #expect(loans.map(\.lender) == [.small(head(1, 0)), .small(head(0, 3)), .small(head(0, 2))])
    #expect(loans[0].borrowers.map(\.queryHeads) == [[0, 2]])
    #expect(loans[1].borrowers.map(\.group) == [0, 1])
    #expect(loans[1].borrowers.map(\.queryHeads) == [[1], [3]])
    #expect(loans[2].borrowers.map(\.queryHeads) == [[4, 5]])
    #expect(loans[2].borrowers.map(\.weights) == [[1, 1]])
    #expect(plan.loans(layer: 0, groupSize: 3).isEmpty)
  }

  @Test func unitsAndDepth() {
    #expect(plan.ownGroups(layer: 0) == [0, 1])
    #expect(plan.ownGroups(layer: 1) == [])
    #expect(plan.ownGroups(layer: 2) == [0])
    #expect((0..<3).map { plan.usesKeys(layer: $0) } == [true, false, true])
    #expect(plan.mappedUnits.map { [$0.layer, $0.group] } == [[1, 0], [1, 1], [2, 1]])
    #expect(plan.lentHeads.count == 4)
    #expect(plan.lenderDepth == 2)
    #expect(AttentionPlan.own(layers: 2, kvHeads: 2).lenderDepth == 0)
  }

  @Test func mixturesAndLowerLayersLend() {
    let mixture = HeadMixture(heads: [head(0, 1), head(2, 0)], weights: [[0.25, 0.75], [0, 1]])
    let window = NearWindow(positions: 8, sinks: 2)
    let plan = AttentionPlan(units: [
      [.own, .own],
      [.mapped(near: window, far: .small(mixture)), .mapped(near: window, far: .nothing)],
      [.mapped(near: nil, far: .small(mixture)), .mapped(near: nil, far: .layer(0))],
    ])
    #expect((0..<3).map { plan.usesKeys(layer: $0) } == [true, true, false])
    #expect(plan.sharedHeads(groupSize: 2) == [head(0, 2), head(0, 3)] && plan.lenderDepth == 3)
    let first = plan.loans(layer: 1, groupSize: 2)
    #expect(first.map(\.lender) == [.small(head(0, 1)), .small(head(2, 0))])
    #expect(first.map { $0.borrowers[0].queryHeads } == [[0], [0, 1]])
    #expect(first.map { $0.borrowers[0].weights } == [[0.25], [0.75, 1]])
    let second = plan.loans(layer: 2, groupSize: 2)
    #expect(second.map(\.lender).suffix(2) == [.large(head(0, 2)), .large(head(0, 3))])
    #expect(second.last?.borrowers == [Borrower(group: 1, queryHeads: [3], weights: [1])])
  }

  @Test func farPositionsLieBetweenSinksAndWindow() {
    let window = NearWindow(positions: 4, sinks: 2)
    #expect((0...5).allSatisfy { window.far(of: $0).isEmpty })
    #expect(window.far(of: 6) == 2..<3)
    #expect(window.far(of: 9) == 2..<6)
    #expect(NearWindow(positions: 1).far(of: 3) == 0..<3)
  }
}

@Suite struct PlanValidationTests {
  static let large = ModelShape(
    layerCount: 2, attention: AttentionShape(queryHeads: 4, kvHeads: 2, headDimension: 8))
  static let small = ModelShape(
    layerCount: 1, attention: AttentionShape(queryHeads: 3, kvHeads: 3, headDimension: 4))

  static func mixture(_ heads: [HeadIndex], _ weights: [[Float]]) -> AttentionPlan.Unit {
    .mapped(near: nil, far: .small(HeadMixture(heads: heads, weights: weights)))
  }

  static let good: [AttentionPlan.Unit] = [
    .own, .borrowed([head(0, 2), head(0, 0)]), mixture([head(0, 0), head(0, 1)], [[0.5, 0.5], [1, 0]]),
    .mapped(near: nil, far: .layer(0)), .mapped(near: NearWindow(positions: 1), far: .nothing),
  ]

  @Test(arguments: good)
  func plansThatFitPass(unit: AttentionPlan.Unit) throws {
    try AttentionPlan(units: [[.own, .own], [unit, .own]]).validate(large: Self.large, small: Self.small)
  }

  static let bad: [(AttentionPlan.Unit, String)] = [
    (.borrowed([head(1, 0), head(0, 0)]), "found layer 1, head 0"),
    (.borrowed([head(0, 3), head(0, 0)]), "found layer 0, head 3"),
    (.borrowed([head(-1, 0), head(0, 0)]), "found layer -1"),
    (.borrowed([head(0, 0)]), "expected 2 rows of 1 weights"),
    (mixture([], [[], []]), "1 to 64 small heads"),
    (mixture([head(0, 0), head(0, 0)], [[1, 0], [1, 0]]), "found one twice"),
    (mixture([head(0, 0)], [[1], [1, 0]]), "found 2 of 1 or 2"),
    (mixture([head(0, 0)], [[1], [.nan]]), "finite weights"),
    (.mapped(near: nil, far: .layer(1)), "lower layer"),
    (.mapped(near: nil, far: .layer(-1)), "lower layer"),
    (.mapped(near: nil, far: .nothing), "found neither"),
    (.mapped(near: NearWindow(positions: 0), far: .nothing), "window: expected 1"),
    (.mapped(near: NearWindow(positions: 4, sinks: -1), far: .nothing), "sinks: expected 0"),
    (.mapped(near: NearWindow(positions: .max), far: .layer(0)), "window: expected 1"),
  ]

  @Test(arguments: bad)
  func plansThatDoNotFitAreRefused(unit: AttentionPlan.Unit, problem: String) {
    let error = #expect(throws: PlanError.self) {
      try AttentionPlan(units: [[.own, .own], [unit, .own]]).validate(large: Self.large, small: Self.small)
    }
    #expect(error?.description.contains(problem) == true, "\(error?.description ?? "")")
    #expect(error?.layer == 1 && error?.group == 0)
  }

  @Test func shapesAreCompared() {
    func refuses(_ units: [[AttentionPlan.Unit]], small: ModelShape? = PlanValidationTests.small) {
      #expect(throws: PlanError.self) { try AttentionPlan(units: units).validate(large: Self.large, small: small) }
    }
    refuses([[.own, .own]])
    refuses([[.own, .own], [.own]])
    refuses([[.own, .own], [.borrowed([head(0, 0), head(0, 0)]), .own]], small: nil)
    // Rows of a layer that has none of its own.
    let borrowed = AttentionPlan.Unit.borrowed([head(0, 0), head(0, 0)])
    refuses([[borrowed, .own], [.mapped(near: nil, far: .layer(0)), .own]])
  }
}
