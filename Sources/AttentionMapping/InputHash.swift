// What findings depend on, in few digits.

/// FNV-1a over what is added: enough to tell inputs apart that were not made to collide.
package struct InputHash {
  private var value: UInt64 = 0xcbf2_9ce4_8422_2325

  package init() {}

  private mutating func add(bytes: some Sequence<UInt8>) {
    for byte in bytes { value = (value ^ UInt64(byte)) &* 0x100_0000_01b3 }
  }

  package mutating func add(_ text: String) {
    add(bytes: text.utf8)
    add(bytes: CollectionOfOne(0))
  }

  package mutating func add(_ tokens: [Int32]) {
    tokens.withUnsafeBytes { add(bytes: $0) }
    add(bytes: CollectionOfOne(0))
  }

  /// Hexadecimal digits.
  package var text: String { String(value, radix: 16) }
}
