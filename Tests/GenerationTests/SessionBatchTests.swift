// Several sequences in common passes, and sequences that begin as others do: equal to one sequence after the other, each
// read from its beginning.

import Foundation
import KindredAttention
import KindredAttentionMapping
import KindredCompute
import KindredGeneration
import KindredModelFiles
import KindredTransformer
import Testing

@Suite struct SessionBatchTests {
  typealias Part = Session<CPUBackend>.Part

  let pair: TinyPair
  let header = (0..<90).map { Int32($0 * $0 * 7 % 101) }
  /// Lengths around blocks and pages, and one that needs several passes.
  let endings = [1, 5, 37, 70, 16].enumerated().map { number, count in
    (0..<count).map { Int32(($0 * 5 + 3 * number) % 101) }
  }

  init() throws { pair = try TinyPair() }

  static let mappings = ["unmapped", "recipe"] + NamedPlan.all.map(\.testDescription)

  func session(
    _ name: String, chunk: Int = 512, kvType: KVType = .f32
  ) throws -> Session<CPUBackend> {
    var options = Session<CPUBackend>.Options()
    options.kvType = kvType
    options.chunkRows = chunk
    if name == "unmapped" { return try Session(decoder: pair.large, options: options) }
    if name == "recipe" { return try pair.session(.explicit([1, 2]), chunk: chunk, kvType: kvType) }
    let plan = try #require(NamedPlan.all.first { $0.testDescription == name }).plan
    return try Session(decoder: pair.large, mapping: .planned(small: pair.small, plan: plan), options: options)
  }

  func isClose(_ first: [Float], _ second: [Float], tolerance: Float = 1e-4) -> Bool {
    first.count == second.count && zip(first, second).allSatisfy { abs($0 - $1) < tolerance }
  }

  /// The logits after the last `wanted` tokens of a sequence that is read alone.
  func alone(_ name: String, _ tokens: [Int32], wanted: Int, kvType: KVType = .f32) throws -> [[Float]] {
    let session = try session(name, kvType: kvType)
    var all: [[Float]] = []
    try session.append(tokens) { _, logits in
      all += stride(from: 0, to: logits.count, by: 101).map { Array(logits[$0..<$0 + 101]) }
    }
    return all.suffix(wanted)
  }

  @Test(arguments: mappings, [20, 64, 512])
  func forksReadTogetherAsAlone(name: String, chunk: Int) throws {
    let session = try session(name, chunk: chunk)
    _ = try session.append(header)
    let sequences = endings.map { _ in session.fork(0) }
    let parts = zip(sequences, endings).map { Part(sequence: $0, tokens: $1, wanted: min(3, $1.count)) }
    var found = Array(repeating: [[Float]](), count: parts.count)
    try session.append(parts) { part, token, logits in
      #expect(token == parts[part].tokens.count - parts[part].wanted + found[part].count)
      found[part].append(logits)
    }
    for (index, ending) in endings.enumerated() {
      let expected = try alone(name, header + ending, wanted: parts[index].wanted)
      #expect(found[index].count == expected.count)
      #expect(zip(found[index], expected).allSatisfy { isClose($0, $1) }, "\(index)")
    }
    // One more token each, without the longest: in decode sequences drop out.
    let left = [0, 1, 2, 4]
    var next: [[Float]] = []
    try session.append(left.map { Part(sequence: sequences[$0], tokens: [7]) }) { _, _, logits in next.append(logits) }
    for (place, index) in left.enumerated() {
      #expect(isClose(next[place], try alone(name, header + endings[index] + [7], wanted: 1)[0]), "\(index)")
    }
  }

  /// Caches of half precision have kernels of their own for many rows, which round otherwise than those for few.
  @Test(arguments: mappings, [KVType.f16, .bf16])
  func forksOfHalfPrecisionReadTogetherAsAlone(name: String, kvType: KVType) throws {
    let session = try session(name, kvType: kvType)
    _ = try session.append(header)
    let endings = [40, 100, 17].map { count in (0..<count).map { Int32(($0 * 5 + count) % 101) } }
    let parts = endings.map { Part(sequence: session.fork(0), tokens: $0) }
    var found: [[Float]] = []
    try session.append(parts) { found.append($2) }
    for (ending, logits) in zip(endings, found) {
      let expected = try alone(name, header + ending, wanted: 1, kvType: kvType)[0]
      #expect(isClose(logits, expected, tolerance: 0.01), "\(ending.count)")
    }
  }

  /// What a fork reads leaves the others alone, also where both go on within a page that they shared, or one is cut.
  @Test(arguments: mappings)
  func forksAreIndependent(name: String) throws {
    let session = try session(name)
    _ = try session.append(header)
    let fork = session.fork(0)
    _ = try session.append([1, 2, 3], to: fork)
    let second = session.fork(fork)
    let ofFirst = try session.append([9], to: 0)
    let ofFork = try session.append([4], to: fork)
    let ofSecond = try session.append([5], to: second)
    #expect(isClose(ofFirst, try alone(name, header + [9], wanted: 1)[0]))
    #expect(isClose(ofFork, try alone(name, header + [1, 2, 3, 4], wanted: 1)[0]))
    #expect(isClose(ofSecond, try alone(name, header + [1, 2, 3, 5], wanted: 1)[0]))
    session.truncate(fork, to: header.count)
    guard session.kvBytes(of: fork).unmapped > 0 else { return }  // A window no longer has what comes next.
    #expect(isClose(try session.append([8], to: fork), try alone(name, header + [8], wanted: 1)[0]))
    #expect(isClose(try session.append([6], to: second), try alone(name, header + [1, 2, 3, 5, 6], wanted: 1)[0]))
  }

  @Test func whatForksShareCountsOnce() throws {
    let session = try session("recipe")
    _ = try session.append(header)
    let before = session.kvBytes
    let fork = session.fork(0)
    #expect(session.kvBytes.total == before.total)
    #expect(session.kvBytes(of: fork) == before)
    _ = try session.append([1], to: fork)
    // 90 tokens are a full page, which stays shared, and one that is begun, which is copied.
    let pages = session.kvBytes.large - before.large
    #expect(pages == before.large / 2)
    #expect(session.kvBytes(of: fork).large == before.large)
    session.removeSequences(from: 1)
    #expect(session.kvBytes == before)
  }

  /// Before there is a map, sequence 0 alone is recorded; reading several at once establishes the same one.
  @Test func mapsAreEstablishedAmongSeveral() throws {
    let session = try session("recipe")
    let other = session.addSequence()
    var last: [[Float]] = []
    try session.append([Part(sequence: 0, tokens: header), Part(sequence: other, tokens: endings[2])]) {
      last.append($2)
    }
    let expected = try self.session("recipe")
    #expect(isClose(last[0], try expected.append(header)))
    #expect(session.plan == expected.plan)
  }

  /// The final state times the output matrix is the logits.
  @Test func finalStatesGiveLogits() throws {
    let file = try #require(try OpenedModel(path: TinyPair.folder("large").path).file)
    let output = try #require(try file.tensors.tensor(named: "lm_head.weight"))
    let rows = output.withBytes { output.type.dequantize($0, count: output.elementCount) }
    let session = try session("recipe", chunk: 64)
    _ = try session.append(header)
    let sequences = endings.map { _ in session.fork(0) }
    let states = try session.finalStates(after: zip(sequences, endings).map { Part(sequence: $0, tokens: $1) })
    for (state, ending) in zip(states, endings) {
      #expect(state.count == 48)
      let logits = (0..<101).map { row in (0..<48).reduce(Float(0)) { $0 + rows[row * 48 + $1] * state[$1] } }
      #expect(isClose(logits, try alone("recipe", header + ending, wanted: 1)[0]))
    }
  }

  @Test func contextsAreNotExceeded() throws {
    let session = try session("unmapped")
    let other = session.addSequence()
    #expect(throws: DecoderError.contextExceeded(needed: 257, limit: 256)) {
      try session.append([
        Part(sequence: 0, tokens: [1]), Part(sequence: other, tokens: Array(repeating: 1, count: 257)),
      ]) {
        _, _, _ in
      }
    }
    #expect(session.tokens.isEmpty)
  }
}
