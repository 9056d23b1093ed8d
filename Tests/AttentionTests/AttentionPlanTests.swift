import KindredAttention
import Testing

@Suite struct AttentionPlanTests {
  let plan: AttentionPlan = {
    func head(_ layer: Int, _ head: Int) -> HeadIndex { HeadIndex(layer: layer, head: head) }
    return AttentionPlan(sources: [
      [.own, .own],
      [.borrowed([head(1, 0), head(0, 3), head(1, 0)]), .borrowed([head(0, 3), head(0, 2), head(0, 2)])],
      [.own, .borrowed([head(1, 0), head(1, 1), head(1, 1)])],
    ])
  }()

  @Test func eachLentHeadStandsOncePerKVHead() {
    let loans = plan.loans(layer: 1)
    #expect(loans.map(\.lender) == [.init(layer: 1, head: 0), .init(layer: 0, head: 3), .init(layer: 0, head: 2)])
    #expect(loans[0].borrowers.map(\.queryHeads) == [[0, 2]])
    #expect(loans[1].borrowers.map(\.group) == [0, 1])
    #expect(loans[1].borrowers.map(\.queryHeads) == [[1], [3]])
    #expect(loans[2].borrowers.map(\.queryHeads) == [[4, 5]])
    #expect(plan.loans(layer: 0).isEmpty)
  }

  @Test func unitsAndDepth() {
    #expect(plan.ownGroups(layer: 0) == [0, 1])
    #expect(plan.ownGroups(layer: 1) == [])
    #expect(plan.ownGroups(layer: 2) == [0])
    #expect(plan.borrowedUnits.map { [$0.layer, $0.group] } == [[1, 0], [1, 1], [2, 1]])
    #expect(plan.lentHeads.count == 4)
    #expect(plan.lenderDepth == 2)
    #expect(AttentionPlan.own(layers: 2, kvHeads: 2).lenderDepth == 0)
  }
}
