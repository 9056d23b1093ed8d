import KindredCompute
import KindredKVStore
import Testing

@Suite struct KVStoreTests {
  static let shape = AttentionShape(queryHeads: 4, kvHeads: 2, headDimension: 8)
  /// Bytes of one page of 64 positions × 8 elements × 2 bytes.
  static let page = 64 * 8 * 2

  func makeStore() throws -> KVStore<CPUBackend> {
    KVStore(
      backend: try CPUBackend(threads: 1, instructionSet: .generic), layerCount: 3, shape: Self.shape, type: .f16)
  }

  @Test func pagesComeAndGo() throws {
    let store = try makeStore()
    let sequence = store.addSequence()
    #expect(store.byteCount == 0)
    try store.extend(sequence, to: 1)
    #expect(store.byteCount == 12 * Self.page)  // 3 layers × 2 heads × (K, V)
    try store.extend(sequence, to: 64)
    #expect(store.byteCount == 12 * Self.page)
    try store.extend(sequence, to: 65)
    #expect(store.byteCount == 24 * Self.page)
    #expect(store.fullByteCount == store.byteCount)
    store.truncate(sequence, to: 64)
    #expect(store.byteCount == 12 * Self.page)
    #expect(store.length(of: sequence) == 64)
    store.remove(sequence)
    #expect(store.byteCount == 0)
  }

  /// Blocks of 32 elements: 34 or 18 bytes, in pages and in near windows.
  @Test(arguments: [(KVType.q8_0, 34), (.q4_0, 18)])
  func blocksAreCountedExactly(type: KVType, bytes: Int) throws {
    let shape = AttentionShape(queryHeads: 2, kvHeads: 1, headDimension: 96)
    let store = KVStore(
      backend: try CPUBackend(threads: 1, instructionSet: .generic), layerCount: 2, shape: shape, type: type)
    store.keepNear(NearWindow(positions: 20), layer: 1, head: 0, dropsValues: false)
    let sequence = store.addSequence()
    try store.pad(sequence, to: 130)
    let row = 3 * bytes
    // 3 layers' parts in 3 pages; the next row, at 130, sees 111 to 129: blocks 6, 7 and 8.
    #expect(store.byteCount == (3 * 3 * 64 + 3 * 16) * row)
    #expect(store.fullByteCount == 4 * 3 * 64 * row)
  }

  @Test func headsFillBlocksOrAreRefused() throws {
    #expect(throws: ComputeError.headDimension(type: .q4_0, found: 80)) { try KVType.q4_0.check(headDimension: 80) }
    let backend = try CPUBackend(threads: 1, instructionSet: .generic)
    #expect(throws: ComputeError.headDimension(type: .q8_0, found: 8)) {
      try backend.makePage(headDimension: 8, type: .q8_0)
    }
    for type in KVType.allCases { try type.check(headDimension: 64) }
    #expect(
      ComputeError.headDimension(type: .q8_0, found: 8).description
        == "KV type q8_0: expected a head dimension in multiples of 32, found 8")
  }

  @Test func droppedUnitsStayDropped() throws {
    let store = try makeStore()
    let first = store.addSequence()
    try store.extend(first, to: 10)
    store.dropKeys(layer: 2, head: 1)
    #expect(store.byteCount == 11 * Self.page)
    store.dropLayers(from: 2)
    #expect(store.byteCount == 8 * Self.page)
    let second = store.addSequence()
    try store.extend(second, to: 100)
    #expect(store.byteCount == (8 + 16) * Self.page)
    #expect(store.fullByteCount == (12 + 24) * Self.page)
    let runs = [
      SequenceRows(sequence: first, rows: 0..<1, firstPosition: 9),
      SequenceRows(sequence: second, rows: 1..<3, firstPosition: 98),
    ]
    let segments = store.segments(runs, layer: 1)
    #expect(segments.map { $0.keys[0].count } == [1, 2])
    #expect(store.segments(runs, layer: 2).allSatisfy { $0.keys.joined().isEmpty && $0.values.joined().isEmpty })
  }
}
