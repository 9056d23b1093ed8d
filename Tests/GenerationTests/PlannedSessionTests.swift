// Sessions of a tiny pair that run by a plan: every form against whole maps, and prefill, decode and batches against
// each other.

import Foundation
import KindredAttention
import KindredAttentionMapping
import KindredCompute
import KindredGeneration
import KindredTransformer
import Testing

/// A plan for the tiny pair: 3 layers of 2 KV heads with 3 query heads each; the small model has 2 layers of 4 heads.
struct NamedPlan: CustomTestStringConvertible {
  let testDescription: String
  let plan: AttentionPlan

  init(_ name: String, _ units: [[AttentionPlan.Unit]]) {
    testDescription = name
    plan = AttentionPlan(units: units)
  }

  private static func head(_ layer: Int, _ head: Int) -> HeadIndex { HeadIndex(layer: layer, head: head) }
  private static let mixture = AttentionPlan.FarSource.small(
    HeadMixture(
      heads: [head(1, 3), head(0, 0), head(1, 1)], weights: [[0.5, 0.25, 0.25], [0, 0.9, 0], [1, 0, 0]]))
  private static let window = NearWindow(positions: 20, sinks: 3)

  static let all = [
    NamedPlan(
      "single heads",
      [[.own, .own], [.own, .borrowed([head(1, 0), head(0, 2), head(1, 0)])], [.own, .own]]),
    NamedPlan("mixtures", [[.own, .mapped(near: nil, far: mixture)], [.own, .own], twice(nil, mixture)]),
    NamedPlan(
      "mixtures after a window", [[.own, .own], twice(window, mixture), [.own, .mapped(near: window, far: mixture)]]),
    NamedPlan("shared rows", [[.own, .own], [.own, .mapped(near: nil, far: .layer(0))], twice(nil, .layer(0))]),
    NamedPlan(
      "shared rows after a window", [[.own, .own], twice(NearWindow(positions: 70), .layer(0)), [.own, .own]]),
    NamedPlan("sinks and a window", [twice(window, .nothing), [.own, .own], twice(window, .nothing)]),
    NamedPlan(
      "all together",
      [
        [.own, .mapped(near: window, far: .nothing)],
        [.mapped(near: NearWindow(positions: 1), far: .layer(0)), .mapped(near: nil, far: mixture)],
        [.mapped(near: NearWindow(positions: 66, sinks: 17), far: mixture), .own],
      ]),
  ]

  private static func twice(_ near: NearWindow?, _ far: AttentionPlan.FarSource) -> [AttentionPlan.Unit] {
    Array(repeating: .mapped(near: near, far: far), count: 2)
  }
}

@Suite struct PlannedSessionTests {
  let pair: TinyPair
  let tokens = (0..<150).map { Int32($0 * $0 * 7 % 101) }

  init() throws { pair = try TinyPair() }

  func session(_ plan: AttentionPlan, chunk: Int = 512, kvType: KVType = .f32) throws -> Session<CPUBackend> {
    var options = Session<CPUBackend>.Options()
    options.kvType = kvType
    options.chunkRows = chunk
    return try Session(
      decoder: pair.large, mapping: .planned(small: pair.small, plan: plan), options: options)
  }

  func agree(_ first: [Float], _ second: [Float], tolerance: Float = 1e-4) -> Bool {
    first.count == second.count && zip(first, second).allSatisfy { abs($0 - $1) < tolerance }
  }

  @Test(arguments: NamedPlan.all)
  func agreesWithWholeMaps(named: NamedPlan) throws {
    let (large, small) = (
      try SlowDecoder(folder: TinyPair.folder("large")), try SlowDecoder(folder: TinyPair.folder("small"))
    )
    let expected = large.run(tokens, plan: named.plan, lent: small.run(tokens).maps).logits
    let found = try pair.logits(try session(named.plan), tokens)
    #expect(agree(found, expected.joined().map { Float($0) }, tolerance: 1e-3))
    // A plan that did nothing would be found out.
    let unmapped = large.run(tokens).logits.joined().map { Float($0) }
    #expect(!agree(found, unmapped, tolerance: 1e-2))
  }

  @Test func theSlowTwinIsAnOrdinaryDecoderWithoutAPlan() throws {
    let found = try pair.logits(try pair.session(nil), tokens)
    let expected = try SlowDecoder(folder: TinyPair.folder("large")).run(tokens).logits
    #expect(agree(found, expected.joined().map { Float($0) }, tolerance: 1e-3))
  }

  /// Chunks of 1 (decode), of a few rows, and of more than a page.
  @Test(arguments: NamedPlan.all, [1, 7, 70])
  func chunksAgreeWithTheWhole(named: NamedPlan, chunk: Int) throws {
    let whole = try pair.logits(try session(named.plan), tokens)
    let chunked = try session(named.plan, chunk: chunk)
    #expect(agree(try pair.logits(chunked, tokens), whole))
  }

  /// Where only the last token's output is wanted, the last layer of the others ends with what is stored or recorded.
  @Test(arguments: NamedPlan.all, [512, 70])
  func unwantedOutputsAreNotMissed(named: NamedPlan, chunk: Int) throws {
    let all = try pair.logits(try session(named.plan), tokens)
    let whole = Array(all.suffix(pair.expected.vocabulary))
    #expect(agree(try session(named.plan, chunk: chunk).append(tokens), whole))
    let parts = try session(named.plan, chunk: chunk)
    let other = parts.addSequence()
    var found: [[Float]] = []
    try parts.append([.init(sequence: other, tokens: [5], wanted: 0), .init(sequence: 0, tokens: tokens)]) {
      found.append($2)
    }
    #expect(found.count == 1 && found.allSatisfy { agree($0, whole) })
  }

  /// Sequences of different lengths, decoded together.
  @Test(arguments: NamedPlan.all)
  func sequencesTogetherAgreeWithEachAlone(named: NamedPlan) throws {
    let lengths = [90, 3, 30]
    let together = try session(named.plan)
    let alone = try lengths.map { _ in try session(named.plan) }
    for (line, length) in lengths.enumerated() {
      if line > 0 { together.addSequence() }
      _ = try together.append(Array(tokens.prefix(length)), to: line)
      _ = try alone[line].append(Array(tokens.prefix(length)))
    }
    for step in 0..<20 {
      let next = lengths.indices.map { Int32((step * 3 + $0) % 101) }
      let expected = try zip(alone, next).flatMap { try $0.append([$1]) }
      #expect(agree(try together.step(next), expected), "step \(step)")
    }
    #expect(together.kvBytes.total == alone.reduce(0) { $0 + $1.kvBytes.total })
  }

  /// A window that holds everything is ordinary attention.
  @Test func aWideWindowChangesNothing() throws {
    let window = NearWindow(positions: 150)
    let unit = AttentionPlan.Unit.mapped(near: window, far: .layer(0))
    let found = try pair.logits(
      try session(AttentionPlan(units: [[.own, .own], [unit, unit], [unit, unit]])), tokens)
    #expect(agree(found, try pair.logits(try session(.own(layers: 3, kvHeads: 2)), tokens)))
  }

  @Test(arguments: [KVType.f32, .f16, .bf16])
  func aPlanThatMapsNothingIsTheUnmappedModelBitForBit(kvType: KVType) throws {
    let planned = try session(.own(layers: 3, kvHeads: 2), kvType: kvType)
    let alone = try pair.session(nil, kvType: kvType)
    #expect(try pair.logits(planned, tokens) == pair.logits(alone, tokens))
    #expect(planned.kvBytes == alone.kvBytes && planned.kvBytes.small == 0)
  }

  // MARK: Bytes

  /// Bytes of one KV head of the large model at so many positions, of keys or of values.
  func bytes(_ positions: Int) -> Int { positions * 8 * 4 }

  /// 150 positions lie in 3 pages.
  @Test func bytesAreThoseOfTheWindow() throws {
    let window = NearWindow(positions: 20, sinks: 3)
    let far = AttentionPlan.FarSource.small(
      HeadMixture(single: Array(repeating: HeadIndex(layer: 0, head: 1), count: 3)))
    let plan = AttentionPlan(units: [
      [.own, .mapped(near: nil, far: far)],
      [.mapped(near: window, far: far), .mapped(near: window, far: .nothing)],
      [.own, .own],
    ])
    let session = try session(plan, chunk: 64)
    _ = try session.append(tokens)
    // The next row, at 150, sees 131 to 149: blocks 8 and 9, beside that of the sinks.
    let near = bytes(3 * 16)
    let page = bytes(3 * 64)
    #expect(session.kvBytes.unmapped == 12 * page)
    #expect(session.kvBytes.large == 6 * page + page + (near + page) + 2 * near)
    // One KV head of one layer of the small model, of 16 elements.
    #expect(session.kvBytes.small == 2 * 3 * 64 * 16 * 4)
    for _ in 0..<40 { _ = try session.append([1]) }
    // At 190 it sees 171 to 189: blocks 10 and 11.
    #expect(session.kvBytes.large == 6 * page + page + (near + page) + 2 * near)
  }

  @Test func withoutSmallHeadsNoSmallModelRuns() throws {
    let unit = AttentionPlan.Unit.mapped(near: nil, far: .layer(0))
    let plan = AttentionPlan(units: [[.own, .own], [unit, unit], [.own, .own]])
    let session = try Session(decoder: pair.large, mapping: .planned(small: nil, plan: plan))
    _ = try session.append(tokens)
    #expect(session.kvBytes.small == 0)
    #expect(session.kvBytes.large * 12 == session.kvBytes.unmapped * 10)
  }

  @Test func plansForOtherModelsAreRefused() throws {
    #expect(throws: PlanError.self) { try session(.own(layers: 2, kvHeads: 2)) }
    let needy = AttentionPlan(units: [
      [.borrowed(Array(repeating: HeadIndex(layer: 0, head: 0), count: 3)), .own], [.own, .own], [.own, .own],
    ])
    #expect(throws: PlanError.self) {
      try Session(decoder: pair.large, mapping: .planned(small: nil, plan: needy))
    }
  }

  // MARK: Going back

  @Test func truncatedSessionsContinueAsIfNew() throws {
    for named in NamedPlan.all {
      let session = try session(named.plan)
      let first = try pair.logits(session, tokens)
      session.truncate(to: 149)
      // A window of 20 may have lost what row 149 needs, but then everything is read again.
      #expect(session.tokens.count == 149 || session.tokens.isEmpty)
      let again = try session.append(Array(tokens[session.tokens.count...]))
      #expect(agree(again, Array(first.suffix(101))), "\(named.testDescription)")
      session.truncate(to: 40)
      #expect(agree(try session.append(Array(tokens[session.tokens.count...])), again))
    }
  }

  @Test func windowsForgetWhatTheyCannotContinue() throws {
    let window = NearWindow(positions: 20, sinks: 3)
    let unit = AttentionPlan.Unit.mapped(near: window, far: .nothing)
    let plan = AttentionPlan(units: [[.own, .own], [.own, unit], [.own, .own]])
    let session = try session(plan)
    _ = try session.append(tokens)
    // Blocks 8 and 9 are there: row 148 needs 129 to 147, row 147 needs 128, and row 146 needs 127.
    session.truncate(to: 147)
    #expect(session.tokens.count == 147)
    session.truncate(to: 146)
    #expect(session.tokens.isEmpty && session.kvBytes.large == 0)
    // Where nothing was freed, any length can be continued.
    _ = try session.append(Array(tokens.prefix(20)))
    session.truncate(to: 5)
    #expect(session.tokens == Array(tokens.prefix(5)))
  }

  @Test func paddedSessionsHoldAsMuch() throws {
    for named in NamedPlan.all {
      let padded = try session(named.plan)
      let read = try session(named.plan)
      _ = try padded.append(Array(tokens.prefix(10)))
      try padded.pad(to: 150)
      _ = try read.append(tokens)
      #expect(padded.kvBytes == read.kvBytes, "\(named.testDescription)")
      #expect(try padded.append([1]).allSatisfy(\.isFinite))
    }
  }
}
