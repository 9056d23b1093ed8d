import KindredCompute
import Synchronization
import Testing

@Suite struct ThreadPoolTests {
  @Test(arguments: [1, 2, 5])
  func everyItemRunsOnce(threads: Int) {
    let pool = ThreadPool(threadCount: threads)
    for count in [0, 1, 2, 3, 17, 1000] {
      let counts = UnsafeMutableBufferPointer<Atomic<Int>>.allocate(capacity: max(count, 1))
      for index in counts.indices { counts.initializeElement(at: index, to: Atomic(0)) }
      defer { counts.deallocate() }
      nonisolated(unsafe) let items = counts
      pool.run(count) { worker, item in
        #expect(worker < threads)
        items[item].add(1, ordering: .relaxed)
      }
      for index in 0..<count { #expect(counts[index].load(ordering: .relaxed) == 1) }
    }
  }

  /// Regions right after each other, and after pauses in which the workers fall asleep, from several callers.
  @Test func manyRegionsFromSeveralCallers() async {
    let pool = ThreadPool(threadCount: 3)
    let total = await withTaskGroup(of: Int.self) { group in
      for caller in 0..<4 {
        group.addTask {
          var total = 0
          for round in 0..<2_000 {
            let sum = Atomic<Int>(0)
            pool.run(7) { _, item in sum.add(item, ordering: .relaxed) }
            total += sum.load(ordering: .relaxed)
            if round % 500 == caller * 100 { try? await Task.sleep(for: .milliseconds(5)) }
          }
          return total
        }
      }
      return await group.reduce(0, +)
    }
    #expect(total == 4 * 2_000 * 21)
  }

  @Test func physicalCoresAreCounted() {
    #expect((1...1024).contains(ThreadPool.physicalCoreCount))
  }
}
