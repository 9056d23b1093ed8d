// A fork-join pool for regions of microseconds.
//
// `concurrentPerform` and task groups cost 13–30 µs a region, which at 200 regions a token is 5 ms; here a region
// costs well under a microsecond while the workers are awake. Workers spin for a bounded time, then sleep on a
// futex, so an idle engine uses no processor.

import CKindredKernels
import Foundation
import Synchronization

/// Threads that share the items of one parallel region after another.
public final class ThreadPool: Sendable {
  /// Threads that work, the caller's included.
  public let threadCount: Int

  private let shared: SharedState
  private let region = Mutex(())

  /// Starts `threadCount - 1` workers; they end with the pool.
  public init(threadCount: Int) {
    self.threadCount = max(1, threadCount)
    shared = SharedState()
    for worker in 1..<self.threadCount {
      let thread = Thread { [shared] in shared.work(as: worker) }
      thread.name = "kindred-\(worker)"
      thread.start()
    }
  }

  deinit { shared.stop() }

  /// Cores that a compute-bound program should use: physical ones, as far as this process may run on them.
  public static var physicalCoreCount: Int {
    let allowed = ProcessInfo.processInfo.activeProcessorCount
    var cores = Set<String>()
    for cpu in 0..<ProcessInfo.processInfo.processorCount {
      let path = "/sys/devices/system/cpu/cpu\(cpu)/topology/thread_siblings_list"
      guard let siblings = try? String(contentsOfFile: path, encoding: .utf8) else { return max(1, allowed) }
      cores.insert(siblings)
    }
    return max(1, min(allowed, cores.count))
  }

  /// Calls `body(worker, item)` once for every item in `0..<count`, on all threads, and returns when all are done.
  ///
  /// Items are taken in rising order. `worker`, below `threadCount`, tells apart the threads that are inside `body`
  /// at one time. Regions do not nest; callers on several threads take turns.
  public func run(_ count: Int, _ body: (_ worker: Int, _ item: Int) -> Void) {
    precondition(count <= SharedState.maximumItems, "a parallel region has at most \(SharedState.maximumItems) items")
    region.withLock { _ in
      guard count > 1, threadCount > 1 else {
        for item in 0..<count { body(0, item) }
        return
      }
      withoutActuallyEscaping(body) { shared.run(count, $0) }
    }
  }
}

/// What the threads of a pool share. One word holds the region's generation, its number of items and the next item,
/// so that taking an item also proves that its region is still open: a worker that wakes late finds nothing to take
/// and never touches a finished region's closure.
private final class SharedState: @unchecked Sendable {
  static let maximumItems = 1 << 20 - 1

  private let claim = Atomic<UInt64>(0)  // generation (24 bits) | count (20) | next (20)
  private let finished = Atomic<Int>(0)
  private let sleepers = Atomic<Int>(0)
  private let stopping = Atomic<Bool>(false)
  /// The futex word: the low bits of the newest generation.
  private let bell = UnsafeMutablePointer<Atomic<UInt32>>.allocate(capacity: 1)
  /// The open region's closure; written before `claim` opens the region, read after an item is taken.
  private var body: ((Int, Int) -> Void)?

  init() { bell.initialize(to: Atomic(0)) }

  deinit {
    bell.deinitialize(count: 1)
    bell.deallocate()
  }

  func run(_ count: Int, _ newBody: @escaping (Int, Int) -> Void) {
    body = newBody
    finished.store(0, ordering: .relaxed)
    let generation = (claim.load(ordering: .relaxed) >> 40 + 1) & 0xFF_FFFF
    claim.store(generation << 40 | UInt64(count) << 20, ordering: .sequentiallyConsistent)
    ring(UInt32(generation))
    takeItems(worker: 0)
    var spins = 0
    while finished.load(ordering: .acquiring) < count {
      spins += 1
      // The last items may be with a worker that lost its core: let it have this one.
      if spins < 20_000 { kindred_pause() } else { sched_yield() }
    }
    body = nil
  }

  func stop() {
    stopping.store(true, ordering: .sequentiallyConsistent)
    ring(bell.pointee.load(ordering: .relaxed) &+ 1)
  }

  /// The life of one worker thread.
  func work(as worker: Int) {
    var seen: UInt32 = 0
    while !stopping.load(ordering: .acquiring) {
      takeItems(worker: worker)
      waitForBell(after: &seen)
    }
  }

  private func ring(_ value: UInt32) {
    bell.pointee.store(value, ordering: .sequentiallyConsistent)
    if sleepers.load(ordering: .sequentiallyConsistent) > 0 { kindred_futex_wake_all(bellWord) }
  }

  private var bellWord: UnsafePointer<UInt32> {
    UnsafeRawPointer(bell).assumingMemoryBound(to: UInt32.self)
  }

  private func waitForBell(after seen: inout UInt32) {
    for _ in 0..<4_000 {  // about 100–200 µs, longer than the serial part between two regions of one pass
      let value = bell.pointee.load(ordering: .acquiring)
      if value != seen {
        seen = value
        return
      }
      kindred_pause()
    }
    sleepers.add(1, ordering: .sequentiallyConsistent)
    while bell.pointee.load(ordering: .sequentiallyConsistent) == seen { kindred_futex_wait(bellWord, seen) }
    sleepers.subtract(1, ordering: .sequentiallyConsistent)
    seen = bell.pointee.load(ordering: .acquiring)
  }

  private func takeItems(worker: Int) {
    var current = claim.load(ordering: .acquiring)
    while current & 0xF_FFFF < current >> 20 & 0xF_FFFF {
      let (exchanged, original) = claim.compareExchange(
        expected: current, desired: current + 1, ordering: .acquiringAndReleasing)
      guard exchanged else {
        current = original
        continue
      }
      body?(worker, Int(current & 0xF_FFFF))
      finished.add(1, ordering: .releasing)
      current = claim.load(ordering: .acquiring)
    }
  }
}
