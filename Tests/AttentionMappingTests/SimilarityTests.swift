// The measures of IAM's Table 1 on the maps of the tiny pair, against SciPy (`make_similarities.py`) and against their
// definitions written out.

import Foundation
import KindredAttention
import KindredAttentionMapping
import KindredCompute
import KindredKVStore
import Testing

private struct ExpectedSimilarities: Decodable {
  struct Measure: Decodable {
    let values: Floats
    let map: [Int]
    let ranking: [Int]
  }

  let measures: [String: Measure]
  let normRatios: Floats

  static func read() throws -> ExpectedSimilarities {
    let file = try #require(Bundle.module.url(forResource: "Fixtures/similarities.json", withExtension: nil))
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return try decoder.decode(ExpectedSimilarities.self, from: Data(contentsOf: file))
  }
}

@Suite struct SimilarityTests {
  static let largeHeads = 18
  static let smallHeads = 8

  /// All pairs over a range of tokens of a pair that has read those before.
  func sums(_ pair: TinyPair, _ measure: SimilarityMeasure, _ range: Range<Int>) throws -> SimilaritySums {
    let (large, small, run) = try pair.read(range)
    return try HeadSimilarity(measure, backend: pair.large.backend).sums(
      of: large, layers: [0, 1, 2], with: small, layerCount: 2, runs: (run, run))
  }

  func values(_ sums: SimilaritySums) -> [Float] {
    (0..<sums.largeCount).flatMap { head in (0..<sums.smallCount).map { Float(sums.value(head, $0)) } }
  }

  func agree(_ first: [Float], _ second: [Float]) -> Bool {
    first.count == second.count && zip(first, second).allSatisfy { abs($0 - $1) < 1e-4 * max(1, abs($1)) }
  }

  @Test(arguments: SimilarityMeasure.allCases, InstructionSet.available)
  func valuesAgreeWithSciPy(measure: SimilarityMeasure, set: InstructionSet) throws {
    let expected = try #require(ExpectedSimilarities.read().measures[measure.rawValue])
    let pair = try TinyPair(set: set)
    let sums = try sums(pair, measure, 0..<pair.expected.tau)
    #expect((sums.largeCount, sums.smallCount) == (Self.largeHeads, Self.smallHeads))
    #expect(agree(values(sums), expected.values.values))
    #expect((0..<sums.largeCount).map(sums.best) == expected.map)
    let best = expected.map.enumerated().map { Double(expected.values.values[$0 * Self.smallHeads + $1]) }
    #expect(abs(sums.meanBest(6..<12) - best[6..<12].reduce(0, +) / 6) < 1e-3)
  }

  /// The rows from 20 on, in blocks: the definitions over the entries at and below the diagonal.
  @Test(arguments: SimilarityMeasure.allCases)
  func blocksOfRowsAddUp(measure: SimilarityMeasure) throws {
    let pair = try TinyPair(set: .generic)
    _ = try pair.read(0..<20)
    var total = try sums(pair, measure, 20..<27)
    total.add(try sums(pair, measure, 27..<60))
    // Of each head all 60 rows, of which the first 20 have 210 entries.
    let maps = pair.expected.smallMaps.values
    let whole = try TinyPair(set: .generic)
    let (large, _, run) = try whole.read(0..<60)
    for head in [0, 7, 17] {
      let own = try entries(
        of: HeadIndex(layer: head / 6, head: head % 6), large, run, from: 20, backend: whole.large.backend)
      for other in 0..<Self.smallHeads {
        let lent = maps[other * 1830 + 210..<(other + 1) * 1830].map(Double.init)
        #expect(abs(total.value(head, other) - defined(measure, own, lent)) < 1e-3)
      }
    }
  }

  /// Entries of the rows from `first` on up to the diagonal.
  func entries(
    of head: HeadIndex, _ lent: LentAttention<CPUBackend>, _ run: SequenceRows, from first: Int, backend: CPUBackend
  ) throws -> [Double] {
    // One page of 64 positions: a row of tiles is a row of the map.
    let tiles = backend.read(try lent.rows(of: head, runs: [run]), rows: first..<run.rows.count)
    var entries: [Double] = []
    for row in first..<run.rows.count {
      let start = (row - first) * 64
      for entry in tiles[start...(start + row)] { entries.append(Double(entry)) }
    }
    return entries
  }

  func defined(_ measure: SimilarityMeasure, _ a: [Double], _ b: [Double]) -> Double {
    func dot(_ x: [Double], _ y: [Double]) -> Double { zip(x, y).reduce(0) { $0 + $1.0 * $1.1 } }
    func cosine(_ x: [Double], _ y: [Double]) -> Double { dot(x, y) / (dot(x, x) * dot(y, y)).squareRoot() }
    func centred(_ x: [Double]) -> [Double] {
      let mean = x.reduce(0, +) / Double(x.count)
      return x.map { $0 - mean }
    }
    let difference = zip(a, b).map { $0 - $1 }
    switch measure {
    case .cosine, .cosineNorm: return cosine(a, b)
    case .pearson: return cosine(centred(a), centred(b))
    case .minkowski1: return difference.reduce(0) { $0 + abs($1) }
    case .minkowski2: return dot(difference, difference).squareRoot()
    }
  }

  /// A map is its own best match.
  @Test(arguments: SimilarityMeasure.allCases)
  func mapsAreMostLikeThemselves(measure: SimilarityMeasure) throws {
    let pair = try TinyPair(set: .generic)
    let (large, _, run) = try pair.read(0..<60)
    let sums = try HeadSimilarity(measure, backend: pair.large.backend).sums(
      of: large, layers: [0, 1, 2], with: large, layerCount: 3, runs: (run, run))
    for head in 0..<Self.largeHeads {
      #expect(sums.best(head) == head)
      #expect(abs(sums.value(head, head) - (measure.isDistance ? 0 : 1)) < 1e-5)
    }
  }

  // MARK: Recipes

  func heads(_ plan: AttentionPlan) -> [HeadIndex] {
    plan.units.joined().flatMap { unit -> [HeadIndex] in
      guard case .mapped(near: nil, far: .small(let mixture)) = unit else { return [] }
      return mixture.weights.compactMap { row in row.firstIndex { $0 != 0 }.map { mixture.heads[$0] } }
    }
  }

  @Test(arguments: SimilarityMeasure.allCases)
  func plansFollowTheMeasure(measure: SimilarityMeasure) throws {
    let expected = try ExpectedSimilarities.read()
    var recipe = PaperRecipe(layers: .explicit([0, 1, 2]))
    recipe.similarity = measure
    let plan = try TinyPair(set: .generic).establish(recipe)
    let map = try #require(expected.measures[measure.rawValue]).map
    #expect(heads(plan) == map.map { HeadIndex(layer: $0 / 4, head: $0 % 4) })
    let weights = plan.units.joined().flatMap { unit -> [Float] in
      guard case .mapped(_, .small(let mixture)) = unit else { return [] }
      return mixture.weights.map { $0.reduce(0, +) }
    }
    let ratios = map.enumerated().map { expected.normRatios.values[$0 * Self.smallHeads + $1] }
    #expect(agree(weights, measure == .cosineNorm ? ratios : ratios.map { _ in 1 }))
    try plan.validate(
      large: ModelShape(layerCount: 3, attention: .init(queryHeads: 6, kvHeads: 2, headDimension: 8)),
      small: ModelShape(layerCount: 2, attention: .init(queryHeads: 4, kvHeads: 2, headDimension: 16)))
  }

  /// One or two of three layers.
  @Test(arguments: [SimilarityMeasure.cosine, .pearson, .minkowski1, .minkowski2], [1, 2])
  func theMostSimilarLayersAreMapped(measure: SimilarityMeasure, count: Int) throws {
    let expected = try #require(ExpectedSimilarities.read().measures[measure.rawValue])
    var recipe = PaperRecipe(layers: .share(.mostSimilar, ratio: Double(count) / 3))
    recipe.similarity = measure
    let plan = try TinyPair(set: .generic).establish(recipe)
    #expect(Set(plan.mappedUnits.map(\.layer)) == Set(expected.ranking.prefix(count)))
    let map = expected.ranking.prefix(count).sorted().flatMap { expected.map[$0 * 6..<($0 + 1) * 6] }
    #expect(heads(plan) == map.map { HeadIndex(layer: $0 / 4, head: $0 % 4) })
  }

  @Test func singleGroupsCanBorrow() throws {
    var recipe = PaperRecipe(layers: .explicit([1]))
    let whole = try TinyPair(set: .generic).establish(recipe)
    recipe.groups = [1]
    let plan = try TinyPair(set: .generic).establish(recipe)
    #expect(plan.mappedUnits.map(\.group) == [1] && plan.units[1][1] == whole.units[1][1])
  }
}
