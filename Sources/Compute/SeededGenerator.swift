// Random numbers that are the same in every run and on every machine.

/// SplitMix64 (Steele, Lea and Flood 2014): the same numbers everywhere for the same seed.
package struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  package init(seed: UInt64) { state = seed }

  /// Another series of numbers, for part `number` of the work.
  package func split(_ number: Int) -> SeededGenerator {
    var generator = SeededGenerator(seed: state ^ (UInt64(number + 1) &* 0x9e37_79b9_7f4a_7c15))
    return SeededGenerator(seed: generator.next())
  }

  package mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var value = state
    value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
    value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
    return value ^ (value >> 31)
  }
}
