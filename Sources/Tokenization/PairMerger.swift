// Byte-pair merging of one word: among all adjacent pairs the one with the lowest priority merges first, the leftmost
// one among equals (Sennrich et al. 2016; the order of PyPI `tokenizers` and of SentencePiece's BPE).

/// Merges the symbols of a word. Reused from word to word, so that it allocates only as words grow.
struct PairMerger {
  /// The symbols of the word, before and after ``merge(_:)``. A negative one below -1 stands for what has no token and
  /// never merges.
  private(set) var symbols: [Int32] = []

  // For long words: neighbours by symbol index, -1 at the ends; and a heap of candidate pairs.
  private var previous: [Int32] = []
  private var next: [Int32] = []
  private var heap: [Candidate] = []

  /// A pair that might merge: out of date once either symbol has changed.
  private struct Candidate {
    var order: UInt64  // priority << 32 | index of the left symbol
    var result: Int32
    var left: Int32
    var right: Int32
    var rightIndex: Int32
  }

  /// Symbols up to which scanning all pairs each time is faster than keeping a heap.
  private static let scanLimit = 48

  mutating func begin() { symbols.removeAll(keepingCapacity: true) }

  mutating func append(_ symbol: Int32) { symbols.append(symbol) }

  /// Merges until no pair is left; `lookup` gives priority << 32 | result, or `UInt64.max`.
  mutating func merge(_ lookup: (Int32, Int32) -> UInt64) {
    if symbols.count <= Self.scanLimit { mergeByScanning(lookup) } else { mergeByHeap(lookup) }
  }

  private mutating func mergeByScanning(_ lookup: (Int32, Int32) -> UInt64) {
    var count = symbols.count
    guard count > 1 else { return }
    withUnsafeTemporaryAllocation(of: UInt64.self, capacity: Self.scanLimit) { pairs in
      for index in 0..<count - 1 { pairs[index] = lookup(symbols[index], symbols[index + 1]) }
      while count > 1 {
        var best = 0
        for index in 1..<count - 1 where pairs[index] >> 32 < pairs[best] >> 32 { best = index }
        guard pairs[best] != .max else { break }
        symbols[best] = Int32(bitPattern: UInt32(truncatingIfNeeded: pairs[best]))
        count -= 1
        for index in best + 1..<max(best + 1, count) {
          symbols[index] = symbols[index + 1]
          pairs[index] = pairs[index + 1]
        }
        if best > 0 { pairs[best - 1] = lookup(symbols[best - 1], symbols[best]) }
        if best < count - 1 { pairs[best] = lookup(symbols[best], symbols[best + 1]) }
      }
    }
    symbols.removeSubrange(count...)
  }

  private mutating func mergeByHeap(_ lookup: (Int32, Int32) -> UInt64) {
    let count = symbols.count
    previous = (0..<count).map { Int32($0) - 1 }
    next = (0..<count).map { $0 == count - 1 ? -1 : Int32($0) + 1 }
    heap.removeAll(keepingCapacity: true)
    for index in 0..<count - 1 { propose(Int32(index), lookup) }
    while let candidate = popSmallest() {
      let left = Int(candidate.order & 0xFFFF_FFFF)
      let right = Int(candidate.rightIndex)
      guard symbols[left] == candidate.left, next[left] == candidate.rightIndex,
        symbols[right] == candidate.right
      else { continue }
      symbols[left] = candidate.result
      symbols[right] = -1
      next[left] = next[right]
      if next[right] >= 0 { previous[Int(next[right])] = Int32(left) }
      if previous[left] >= 0 { propose(previous[left], lookup) }
      propose(Int32(left), lookup)
    }
    symbols.removeAll { $0 == -1 }
  }

  /// Puts the pair that begins at `left` into the heap, if it merges.
  private mutating func propose(_ left: Int32, _ lookup: (Int32, Int32) -> UInt64) {
    let right = next[Int(left)]
    guard right >= 0 else { return }
    let found = lookup(symbols[Int(left)], symbols[Int(right)])
    guard found != .max else { return }
    heap.append(
      Candidate(
        order: found & ~0xFFFF_FFFF | UInt64(left),
        result: Int32(bitPattern: UInt32(truncatingIfNeeded: found)),
        left: symbols[Int(left)], right: symbols[Int(right)], rightIndex: right))
    var child = heap.count - 1
    while child > 0, heap[child].order < heap[(child - 1) / 2].order {
      heap.swapAt(child, (child - 1) / 2)
      child = (child - 1) / 2
    }
  }

  private mutating func popSmallest() -> Candidate? {
    guard let smallest = heap.first else { return nil }
    let last = heap.removeLast()
    guard !heap.isEmpty else { return smallest }
    heap[0] = last
    var parent = 0
    while true {
      var child = 2 * parent + 1
      guard child < heap.count else { return smallest }
      if child + 1 < heap.count, heap[child + 1].order < heap[child].order { child += 1 }
      guard heap[child].order < heap[parent].order else { return smallest }
      heap.swapAt(parent, child)
      parent = child
    }
  }
}
