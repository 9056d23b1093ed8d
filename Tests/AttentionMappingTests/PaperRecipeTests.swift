// IAM's recipe on a tiny pair, against the materialised maps of an independent PyTorch version
// (`make_fixtures.py`), which is the slow twin of everything here.

import Foundation
import KindredAttention
import KindredAttentionMapping
import KindredCompute
import KindredKVStore
import KindredTransformer
import Testing

/// Float32, little-endian, in base 64.
struct Floats: Decodable {
  let values: [Float]

  init(from decoder: any Decoder) throws {
    let data = try decoder.singleValueContainer().decode(Data.self)
    values = data.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
  }
}

struct ExpectedMapping: Decodable {
  struct Case: Decodable {
    let layers: [Int]
    let logits: Floats
  }

  let tokens: [Int32]
  let tau: Int
  let vocabulary: Int
  let smallMaps: Floats
  let similarity: Floats
  let map: [Int]
  let mapped: [Case]
}

/// The tiny pair, each model with a cache of one sequence.
struct TinyPair {
  let expected: ExpectedMapping
  let large: DecoderModel<CPUBackend>
  let small: DecoderModel<CPUBackend>
  let largeState: RunState<CPUBackend>
  let smallState: RunState<CPUBackend>

  init(set: InstructionSet) throws {
    let folder = try #require(Bundle.module.url(forResource: "Fixtures/pair", withExtension: nil))
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    expected = try decoder.decode(
      ExpectedMapping.self, from: Data(contentsOf: folder.appendingPathComponent("expected.json")))
    let backend = try CPUBackend(threads: 2, instructionSet: set)
    large = try DecoderModel(OpenedModel(path: folder.appendingPathComponent("large").path), backend: backend)
    small = try DecoderModel(OpenedModel(path: folder.appendingPathComponent("small").path), backend: backend)
    largeState = try RunState(large.configuration, backend: backend, rowCapacity: 64, kvType: .f32)
    smallState = try RunState(small.configuration, backend: backend, rowCapacity: 64, kvType: .f32)
    _ = largeState.store.addSequence()
    _ = smallState.store.addSequence()
  }

  func batch(_ range: Range<Int>) -> Batch {
    var batch = Batch()
    batch.append(expected.tokens[range], to: 0, from: range.lowerBound)
    return batch
  }

  func record(_ state: RunState<CPUBackend>, layers: Int) throws -> LentAttention<CPUBackend> {
    try LentAttention(backend: large.backend, store: state.store, layers: 0..<layers, rowCapacity: 64)
  }

  /// Runs tokens of a range unmapped and returns the record of both models, and its rows.
  func read(
    _ range: Range<Int>
  ) throws -> (large: LentAttention<CPUBackend>, small: LentAttention<CPUBackend>, run: SequenceRows) {
    let largeRecord = try record(largeState, layers: 3)
    let smallRecord = try record(smallState, layers: 2)
    try small.forward(batch(range), state: smallState, lending: smallRecord)
    try large.forward(batch(range), state: largeState, lending: largeRecord)
    return (
      largeRecord, smallRecord, SequenceRows(sequence: 0, rows: 0..<range.count, firstPosition: range.lowerBound)
    )
  }

  /// Runs the first τ tokens unmapped and returns the plan of a recipe.
  func establish(_ recipe: PaperRecipe) throws -> AttentionPlan {
    let (largeRecord, smallRecord, run) = try read(0..<expected.tau)
    return try recipe.plan(
      large: largeRecord, small: smallRecord, layerCounts: (3, 2), runs: (run, run), backend: large.backend)
  }

  func establish(_ layers: [Int]) throws -> AttentionPlan { try establish(PaperRecipe(layers: .explicit(layers))) }
}

@Suite struct PaperRecipeTests {
  @Test(arguments: InstructionSet.available)
  func mapIsTheMostAlikeHead(set: InstructionSet) throws {
    let pair = try TinyPair(set: set)
    let plan = try pair.establish([0, 1, 2])
    let found = plan.units.joined().flatMap { unit -> [HeadIndex] in
      guard case .mapped(near: nil, far: .small(let mixture)) = unit else { return [] }
      return mixture.weights.compactMap { row in row.firstIndex(of: 1).map { mixture.heads[$0] } }
    }
    #expect(found == pair.expected.map.map { HeadIndex(layer: $0 / 4, head: $0 % 4) })
  }

  /// Rows recomputed tile by tile (`step` 40) and rows kept (`step` 1, 3), for each list of layers.
  @Test(arguments: InstructionSet.available, [1, 3, 40])
  func mappedLogitsAgreeWithMaterialisedMaps(set: InstructionSet, step: Int) throws {
    for expected in try TinyPair(set: set).expected.mapped {
      let pair = try TinyPair(set: set)
      let plan = try pair.establish(expected.layers)
      pair.largeState.store.adopt(plan)
      pair.smallState.store.lend(for: plan)
      let borrowing = try Borrowing(
        plan, large: pair.largeState.store, small: pair.smallState.store, rowCapacity: 64)
      var logits: [Float] = []
      for start in stride(from: pair.expected.tau, to: pair.expected.tokens.count, by: step) {
        let batch = pair.batch(start..<min(start + step, pair.expected.tokens.count))
        try borrowing.beginPass(runs: batch.runs)
        try pair.small.forward(batch, state: pair.smallState, lending: borrowing.lent, depth: plan.lenderDepth)
        try pair.large.forward(batch, state: pair.largeState, borrowing: borrowing)
        logits += pair.large.logits(rows: 0..<batch.tokens.count, state: pair.largeState)
      }
      let reference = expected.logits.values.dropFirst(pair.expected.tau * pair.expected.vocabulary)
      #expect(logits.count == reference.count)
      #expect(zip(logits, reference).allSatisfy { abs($0 - $1) < 1e-4 }, "layers \(expected.layers)")
    }
  }

  @Test func mappedUnitsStoreNoKeys() throws {
    let pair = try TinyPair(set: .generic)
    let full = try {
      try pair.large.forward(pair.batch(0..<60), state: pair.largeState)
      return pair.largeState.store.byteCount
    }()
    #expect(full == pair.largeState.store.fullByteCount)
    pair.largeState.store.dropKeys(layer: 1, head: 0)
    pair.largeState.store.dropKeys(layer: 1, head: 1)
    // 3 layers of keys and values; one layer of keys is gone.
    #expect(pair.largeState.store.byteCount == full * 5 / 6)
    #expect(pair.largeState.store.fullByteCount == full)
    pair.largeState.store.truncate(0, to: 0)
    #expect(pair.largeState.store.byteCount == 0)
  }
}

@Suite struct LayerSelectionTests {
  @Test func backTakesTheLastLayers() throws {
    #expect(try LayerSelection.back(ratio: 0.3).layers(of: 28) == Array(20..<28))
    #expect(try LayerSelection.back(ratio: 0).layers(of: 28) == [])
    #expect(try LayerSelection.back(ratio: 1).layers(of: 3) == [0, 1, 2])
  }

  /// Qwen2-72B has 80 layers: 79 to 64 come first, the rest begins at layer 16.
  @Test(arguments: [
    (LayerStrategy.back, 0.3, Array(56..<80)), (.front, 0.3, Array(0..<24)),
    (.regionsDown, 0.2, Array(64..<80)), (.regionsUp, 0.2, Array(64..<80)),
    (.regionsDown, 0.3, Array(9...16) + Array(64..<80)), (.regionsUp, 0.3, Array(16..<24) + Array(64..<80)),
    (.regionsDown, 0.5, Array(0...16) + Array(57..<80)), (.regionsUp, 0.9, Array(8..<80)),
    (.regionsDown, 1, Array(0..<80)), (.regionsUp, 1, Array(0..<80)),
  ])
  func strategiesOfEightyLayers(strategy: LayerStrategy, ratio: Double, layers: [Int]) throws {
    #expect(try LayerSelection.share(strategy, ratio: ratio).layers(of: 80) == layers)
  }

  @Test(arguments: LayerStrategy.allCases, [1, 2, 3, 4, 28])
  func everyLayerHasItsTurn(strategy: LayerStrategy, count: Int) {
    guard let order = strategy.order(layerCount: count) else { return #expect(strategy == .mostSimilar) }
    #expect(order.sorted() == Array(0..<count))
  }

  @Test func theMostSimilarAreKnownLater() throws {
    let selection = LayerSelection.share(.mostSimilar, ratio: 0.5)
    #expect(try selection.layers(of: 28) == nil)
    #expect(try selection.count(of: 28) == 14)
  }

  @Test func listsAreRead() throws {
    #expect(try LayerSelection(list: "4-6,20").layers(of: 28) == [4, 5, 6, 20])
    #expect(try LayerSelection(list: "3,1,1-2").layers(of: 28) == [1, 2, 3])
    #expect(try LayerSelection(list: "3,1,1-2").count(of: 28) == 3)
  }

  @Test(arguments: ["", "a", "3-", "5-4", "1-2-3", "-1", "1,,2", "0-99999999999"])
  func badListsAreRefused(list: String) {
    #expect(throws: LayerSelection.SelectionError.syntax(list)) { try LayerSelection(list: list) }
  }

  @Test func selectionsOutsideTheModelAreRefused() {
    for ratio in [-0.1, 1.5, .nan] {
      #expect(throws: LayerSelection.SelectionError.self) { try LayerSelection.back(ratio: ratio).layers(of: 4) }
    }
    #expect(throws: LayerSelection.SelectionError.layer(4, layerCount: 4)) {
      try LayerSelection.explicit([1, 4]).layers(of: 4)
    }
  }
}

@Suite struct RecipeOptionsTests {
  /// Numbers of tokens, and what the problem names.
  @Test(arguments: [
    (0, 20, nil, "establish-tokens"), (-5, 20, nil, "establish-tokens"), (1025, 20, nil, "establish-tokens"),
    (100, 0, nil, "minimum-tokens"), (100, 101, nil, "minimum-tokens"), (100, -1, nil, "minimum-tokens"),
    (100, 20, 0, "remap-every"), (100, 20, -3, "remap-every"),
  ])
  func problemsAreNamed(establishment: Int, minimum: Int, remapEvery: Int?, name: String) {
    var recipe = PaperRecipe(layers: .back(ratio: 0.5))
    #expect(recipe.problem == nil)
    recipe.establishmentTokens = establishment
    recipe.minimumTokens = minimum
    recipe.remapEvery = remapEvery
    #expect(recipe.problem?.hasPrefix(name) == true, "\(recipe.problem ?? "")")
    #expect(throws: RecipeError.self) { try recipe.check(layerCount: 4) }
  }
}
