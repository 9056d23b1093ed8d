// Sessions of a tiny pair: what is borrowed, when, and what that leaves in memory. The models and the expected logits
// are `AttentionMappingTests`' (an independent PyTorch version of IAM's recipe).

import Foundation
import KindredAttention
import KindredAttentionMapping
import KindredCompute
import KindredGeneration
import KindredTransformer
import Testing

/// The tiny pair of `AttentionMappingTests/make_fixtures.py`.
struct TinyPair {
  struct Expected: Decodable {
    struct Case: Decodable {
      let layers: [Int]
      let logits: Data
    }

    let tokens: [Int32]
    let tau: Int
    let vocabulary: Int
    let mapped: [Case]
  }

  let expected: Expected
  let large: DecoderModel<CPUBackend>
  let small: DecoderModel<CPUBackend>

  /// A file or folder of the pair.
  static func folder(_ name: String) -> URL {
    URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .appendingPathComponent("AttentionMappingTests/Fixtures/pair").appendingPathComponent(name)
  }

  init() throws {
    expected = try JSONDecoder().decode(
      Expected.self, from: Data(contentsOf: Self.folder("expected.json")))
    let backend = try CPUBackend(threads: 2)
    large = try DecoderModel(OpenedModel(path: Self.folder("large").path), backend: backend)
    small = try DecoderModel(OpenedModel(path: Self.folder("small").path), backend: backend)
  }

  func session(
    _ layers: LayerSelection?, establishment: Int = 20, minimum: Int = 20, chunk: Int = 512, kvType: KVType = .f32
  ) throws -> Session<CPUBackend> {
    var options = Session<CPUBackend>.Options()
    options.kvType = kvType
    options.chunkRows = chunk
    let mapping = layers.map { layers in
      var recipe = PaperRecipe(layers: layers)
      recipe.establishmentTokens = establishment
      recipe.minimumTokens = minimum
      return Session<CPUBackend>.Mapping.established(small: small, recipe: recipe)
    }
    return try Session(decoder: large, mapping: mapping, options: options)
  }

  func logits(_ session: Session<CPUBackend>, _ tokens: [Int32]) throws -> [Float] {
    var all: [Float] = []
    try session.append(tokens) { _, logits in all += logits }
    return all
  }
}

@Suite struct SessionTests {
  @Test(arguments: [5, 512])
  func mappedPrefillAgreesWithMaterialisedMaps(chunk: Int) throws {
    let pair = try TinyPair()
    for expected in pair.expected.mapped {
      let session = try pair.session(.explicit(expected.layers), chunk: chunk)
      let logits = try pair.logits(session, pair.expected.tokens)
      let reference = expected.logits.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
      #expect(logits.count == reference.count)
      #expect(zip(logits, reference).allSatisfy { abs($0 - $1) < 1e-4 }, "layers \(expected.layers)")
    }
  }

  @Test(arguments: [KVType.f32, .f16, .bf16])
  func ratioZeroIsTheUnmappedModelBitForBit(kvType: KVType) throws {
    let pair = try TinyPair()
    let alone = try pair.session(nil, kvType: kvType)
    let unmapped = try pair.session(.back(ratio: 0), kvType: kvType)
    #expect(try pair.logits(alone, pair.expected.tokens) == pair.logits(unmapped, pair.expected.tokens))
    #expect(unmapped.kvBytes.small == 0)
    #expect(unmapped.kvBytes.large == unmapped.kvBytes.unmapped)
  }

  @Test func mappedLayersSaveExactlyTheirKeys() throws {
    let pair = try TinyPair()
    let session = try pair.session(.explicit([1, 2]))
    _ = try session.append(pair.expected.tokens)
    let kv = session.kvBytes
    // One page of 64 positions: 2 KV heads × 8 elements × 4 bytes a layer for keys.
    #expect(kv.unmapped - kv.large == 2 * 2 * 64 * 8 * 4)
    #expect(kv.unmapped == 3 * 2 * 2 * 64 * 8 * 4)
    #expect(kv.small > 0)
    #expect(kv.total == kv.large + kv.small)
  }

  /// A long prompt whose last token's logits alone are wanted; the map, of all its first tokens, is the same.
  @Test(arguments: [nil, LayerSelection.explicit([0]), .explicit([1, 2])], [5, 512])
  func unwantedOutputsAreNotMissed(layers: LayerSelection?, chunk: Int) throws {
    let pair = try TinyPair()
    let tokens = (0..<150).map { Int32($0 * $0 * 7 % 101) }
    let whole = try pair.session(layers)
    let expected = try pair.logits(whole, tokens).suffix(pair.expected.vocabulary)
    let session = try pair.session(layers, chunk: chunk)
    let found = try session.append(tokens)
    #expect(zip(found, expected).allSatisfy { abs($0 - $1) < 1e-4 } && found.count == expected.count)
    #expect(session.plan == whole.plan && session.kvBytes == whole.kvBytes)
  }

  /// A prompt shorter than τ_e: the model runs alone until there are that many tokens.
  @Test func shortPromptsEstablishLater() throws {
    let pair = try TinyPair()
    let tokens = pair.expected.tokens
    let session = try pair.session(.explicit([1]), establishment: 40, minimum: 20)
    let alone = try pair.session(nil)
    for (index, token) in tokens.prefix(20).enumerated() {
      #expect(session.plan.lentHeads.isEmpty, "token \(index)")
      #expect(try session.append([token]) == alone.append([token]))
    }
    #expect(!session.plan.lentHeads.isEmpty)
    #expect(try session.append([tokens[20]]) != alone.append([tokens[20]]))
  }

  /// A prompt between τ_e and τ_t establishes at its end, a longer one at τ_t.
  @Test func establishmentPoint() throws {
    let pair = try TinyPair()
    let session = try pair.session(.explicit([2]), establishment: 40, minimum: 20)
    _ = try session.append(Array(pair.expected.tokens.prefix(30)))
    #expect(session.plan.mappedUnits.count == 2)
    let longer = try pair.session(.explicit([2]), establishment: 20, minimum: 20)
    _ = try longer.append(pair.expected.tokens)
    let atTwenty = try pair.session(.explicit([2]), establishment: 20, minimum: 20)
    _ = try atTwenty.append(Array(pair.expected.tokens.prefix(20)))
    #expect(longer.plan == atTwenty.plan)
  }

  @Test(arguments: [LayerSelection.back(ratio: 0), .explicit([0, 2])])
  func truncatedSessionsContinueAsIfNew(layers: LayerSelection) throws {
    let pair = try TinyPair()
    let tokens = pair.expected.tokens
    let session = try pair.session(layers)
    let first = try session.append(tokens)
    session.truncate(to: 30)
    #expect(session.tokens == Array(tokens.prefix(30)))
    #expect(try session.append(Array(tokens[30...])) == first)
  }

  @Test func anySequenceCanBeTruncated() throws {
    let pair = try TinyPair()
    let tokens = pair.expected.tokens
    let session = try pair.session(.explicit([1]))
    session.addSequence()
    _ = try session.append(tokens)
    let second = try session.append(Array(tokens.prefix(30)), to: 1)
    let kv = session.kvBytes
    session.truncate(1, to: 25)
    #expect(session.tokens == tokens)
    #expect(try session.append(Array(tokens[25..<30]), to: 1) == second)
    #expect(session.kvBytes == kv)
  }

  /// Padding leaves what is there and takes the memory of as many tokens.
  @Test func paddedSessionsHoldAsMuch() throws {
    let pair = try TinyPair()
    let tokens = pair.expected.tokens
    let padded = try pair.session(.explicit([1, 2]))
    let read = try pair.session(.explicit([1, 2]))
    for session in [padded, read] {
      _ = try session.append(tokens)
      session.addSequence()
    }
    let length = padded.contextLength - 1
    try padded.pad(to: length)
    let rest = Array(repeating: Int32(0), count: length)
    _ = try read.append(Array(rest.dropFirst(tokens.count)))
    _ = try read.append(rest, to: 1)
    #expect(padded.kvBytes == read.kvBytes && padded.tokens.count == length)
    #expect(try padded.step([1, 2]).allSatisfy(\.isFinite))
    padded.truncate(to: 30)
    read.truncate(to: 30)
    #expect(try padded.append([3]) == read.append([3]))
    #expect(throws: DecoderError.contextExceeded(needed: length + 2, limit: length + 1)) {
      try padded.pad(to: length + 2)
    }
  }

  @Test func sequencesTogetherAgreeWithEachAlone() throws {
    let pair = try TinyPair()
    let tokens = pair.expected.tokens
    let together = try pair.session(nil)
    together.addSequence()
    _ = try together.append(Array(tokens.prefix(30)), to: 0)
    _ = try together.append(Array(tokens.suffix(7)), to: 1)
    let logits = try together.step([3, 4])
    let first = try pair.session(nil)
    let second = try pair.session(nil)
    _ = try first.append(Array(tokens.prefix(30)))
    _ = try second.append(Array(tokens.suffix(7)))
    #expect(logits == (try first.append([3])) + (try second.append([4])))
  }

  /// Several short sequences establish on the first one alone, while they are decoded together.
  @Test func sequencesTogetherBorrowFromTheFirstOnesMap() throws {
    let pair = try TinyPair()
    let tokens = pair.expected.tokens
    let together = try pair.session(.explicit([1]), establishment: 40, minimum: 20)
    let alone = try pair.session(.explicit([1]), establishment: 40, minimum: 20)
    together.addSequence()
    _ = try together.append(Array(tokens.prefix(15)), to: 0)
    _ = try together.append(Array(tokens.suffix(30)), to: 1)
    _ = try alone.append(Array(tokens.prefix(15)))
    for token in tokens[15..<25] {
      let logits = try together.step([token, 7])
      #expect(logits.count == 2 * pair.expected.vocabulary)
      #expect(Array(logits.prefix(pair.expected.vocabulary)) == (try alone.append([token])))
    }
    #expect(together.plan == alone.plan)
    #expect(!together.plan.lentHeads.isEmpty)
  }

  // MARK: Remapping

  func remapping(
    _ pair: TinyPair, every count: Int?, layers: [Int] = [1, 2], minimum: Int = 20
  ) throws -> Session<CPUBackend> {
    var recipe = PaperRecipe(layers: .explicit(layers))
    recipe.establishmentTokens = 20
    recipe.minimumTokens = minimum
    recipe.remapEvery = count
    var options = Session<CPUBackend>.Options()
    options.kvType = .f32
    return try Session(decoder: pair.large, mapping: .established(small: pair.small, recipe: recipe), options: options)
  }

  /// After every 7 tokens read one by one the plan is what a fresh session finds on the newest 20.
  @Test func mapsAreFoundAnewOnTheNewestTokens() throws {
    let pair = try TinyPair()
    let tokens = pair.expected.tokens
    let session = try remapping(pair, every: 7)
    _ = try session.append(Array(tokens.prefix(30)))
    let first = session.plan
    var plans: [AttentionPlan] = [first]
    for count in 31...tokens.count {
      _ = try session.append([tokens[count - 1]])
      guard (count - 30) % 7 == 0 else {
        #expect(session.plan == plans.last)
        continue
      }
      let fresh = try remapping(pair, every: nil)
      _ = try fresh.append(Array(tokens[count - 20..<count]))
      #expect(session.plan == fresh.plan, "after \(count) tokens")
      plans.append(session.plan)
    }
    #expect(Set(plans).count > 2)
    #expect(plans.allSatisfy { $0.mappedUnits.map(\.layer) == first.mappedUnits.map(\.layer) })
    // Keys of mapped layers are still not stored, those of the small model all are.
    #expect(session.kvBytes.unmapped - session.kvBytes.large == 2 * 2 * 64 * 8 * 4)
    #expect(session.kvBytes.small == 2 * 2 * 2 * 64 * 16 * 4)
  }

  /// Where only the last layer borrows, no stored value depends on earlier maps: the session then is that of its
  /// newest plan.
  @Test func laterTokensRunByTheNewMap() throws {
    let pair = try TinyPair()
    let tokens = pair.expected.tokens
    let session = try remapping(pair, every: 5, layers: [2])
    _ = try session.append(Array(tokens.prefix(30)))
    let before = session.plan
    for token in tokens[30..<35] { _ = try session.append([token]) }
    #expect(session.plan != before)
    let found = try session.append([tokens[35]])
    var options = Session<CPUBackend>.Options()
    options.kvType = .f32
    let planned = try Session(
      decoder: pair.large, mapping: .planned(small: pair.small, plan: session.plan), options: options)
    let expected = try planned.append(Array(tokens.prefix(36)))
    #expect(zip(found, expected).allSatisfy { abs($0 - $1) < 1e-4 })
    let old = try Session(decoder: pair.large, mapping: .planned(small: pair.small, plan: before), options: options)
    #expect(!zip(found, try old.append(Array(tokens.prefix(36)))).allSatisfy { abs($0 - $1) < 1e-3 })
  }

  /// The token that establishes a late map does not count; sequences decoded together follow the first one's.
  @Test func decodedSequencesAreRemappedTogether() throws {
    let pair = try TinyPair()
    let tokens = pair.expected.tokens
    let session = try remapping(pair, every: 4, minimum: 10)
    session.addSequence()
    _ = try session.append(Array(tokens.prefix(9)))
    _ = try session.append(Array(tokens.suffix(5)), to: 1)
    _ = try session.step([tokens[9], 1])
    #expect(!session.plan.lentHeads.isEmpty)
    for index in 10..<14 {
      let before = session.plan
      #expect(try session.step([tokens[index], 2]).allSatisfy(\.isFinite))
      #expect(index == 13 || session.plan == before)
    }
    let fresh = try remapping(pair, every: nil, minimum: 10)
    _ = try fresh.append(Array(tokens.prefix(14)))
    #expect(session.plan == fresh.plan)
  }

  @Test func senselessRecipesAreRefused() throws {
    let pair = try TinyPair()
    #expect(throws: RecipeError.self) { try remapping(pair, every: 0) }
    #expect(throws: RecipeError.self) { try remapping(pair, every: 5, minimum: 21) }
  }

  @Test func contextIsTheSmallerModels() throws {
    let pair = try TinyPair()
    let session = try pair.session(nil)
    let length = session.contextLength
    #expect(throws: DecoderError.contextExceeded(needed: length + 1, limit: length)) {
      try session.append(Array(repeating: 1, count: length + 1))
    }
    #expect(session.tokens.isEmpty)
  }
}
