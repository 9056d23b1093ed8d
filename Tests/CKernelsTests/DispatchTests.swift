// The choice of instruction set, and waiting.
import CKindredKernels
import Foundation
import Testing

@Suite struct DispatchTests {
  @Test func theBestInstructionSetIsAvailable() {
    #expect(kindred_isa_available(kindred_isa_best()))
    for set in InstructionSet.available { #expect(set.kernels.isa == set.isa) }
  }

  @Test func instructionSetsOfOtherProcessorsAreAbsent() {
    #if arch(x86_64)
      let absent = KINDRED_ISA_NEON
    #else
      let absent = KINDRED_ISA_AVX512
    #endif
    #expect(!kindred_isa_available(absent))
    #expect(kindred_kernels_for(absent) == nil)
    #expect(kindred_kernels_for(kindred_isa(rawValue: 77)) == nil)
  }

  /// A waiter returns at once where the word has changed, and after a wake where it has not.
  @Test func waitersWake() {
    let word = UnsafeMutablePointer<UInt32>.allocate(capacity: 1)
    defer { word.deallocate() }
    word.pointee = 1
    kindred_futex_wait(word, 0)
    kindred_pause()
    let returned = DispatchSemaphore(value: 0)
    let address = UInt(bitPattern: word)
    Thread.detachNewThread {
      kindred_futex_wait(UnsafePointer<UInt32>(bitPattern: address)!, 1)
      returned.signal()
    }
    // The waiter may not sleep yet when the first wake comes, hence several.
    let woken = (0..<1000).contains { _ in
      kindred_futex_wake_all(word)
      return returned.wait(timeout: .now() + 0.01) == .success
    }
    #expect(woken)
  }
}
