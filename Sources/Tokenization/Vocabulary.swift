// The entries of a tokenizer: each id's bytes, found by id and by bytes.

import KindredModelFiles

/// What an entry is for. The numbers are those of GGUF's `tokenizer.ggml.token_type`.
enum TokenKind: UInt8, Sendable {
  case normal = 1
  case unknown, control, userDefined, unused, byte
}

/// Token texts as bytes, by id and by content.
///
/// Contents stand end to end in one array; the index is an open-addressing hash table of ids, at most half full.
struct Vocabulary: Sendable {
  private var bytes: [UInt8] = []
  private var ends: [Int] = []
  private(set) var kinds: [TokenKind] = []
  private var slots: [Int32] = []

  /// Entries in all.
  var count: Int { ends.count }

  /// Adds an entry; where two have the same content, it is the first that is found by it.
  mutating func append(_ content: some Collection<UInt8>, kind: TokenKind = .normal) {
    bytes += content
    ends.append(bytes.count)
    kinds.append(kind)
  }

  /// Makes the index; call it once all entries are there.
  mutating func makeIndex() {
    var size = 64
    while size < count * 2 { size *= 2 }
    slots = Array(repeating: -1, count: size)
    for id in 0..<Int32(count) {
      self[id].withUnsafeBufferPointer { content in
        let slot = find(content)
        if slots[slot] < 0 { slots[slot] = id }
      }
    }
  }

  /// The content of an entry; empty for an id that does not exist.
  subscript(id: Int32) -> ArraySlice<UInt8> {
    guard id >= 0, id < count else { return [] }
    return bytes[(id == 0 ? 0 : ends[Int(id) - 1])..<ends[Int(id)]]
  }

  /// The first id with this content.
  func id(of content: UnsafeBufferPointer<UInt8>) -> Int32? {
    let id = slots[find(content)]
    return id < 0 ? nil : id
  }

  /// The first id with this text.
  func id(of text: String) -> Int32? {
    Array(text.utf8).withUnsafeBufferPointer { id(of: $0) }
  }

  /// The slot that holds `content`, or the free one where it would stand.
  private func find(_ content: UnsafeBufferPointer<UInt8>) -> Int {
    let mask = slots.count - 1
    var slot = Int(truncatingIfNeeded: Self.hash(content)) & mask
    while slots[slot] >= 0, !equals(slots[slot], content) { slot = (slot + 1) & mask }
    return slot
  }

  private func equals(_ id: Int32, _ content: UnsafeBufferPointer<UInt8>) -> Bool {
    let start = id == 0 ? 0 : ends[Int(id) - 1]
    guard ends[Int(id)] - start == content.count else { return false }
    return bytes.withUnsafeBufferPointer { all in
      for index in 0..<content.count where all[start + index] != content[index] { return false }
      return true
    }
  }

  /// FNV-1a with a final mix, since slots are taken from the low bits.
  static func hash(_ content: UnsafeBufferPointer<UInt8>) -> UInt64 {
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    for byte in content { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
    return hash ^ hash >> 29
  }
}

/// The order in which adjacent tokens are merged: for each pair its priority (lower goes first) and what it becomes.
///
/// An open-addressing hash table, at most half full.
struct MergeTable: Sendable {
  private var keys: [UInt64] = []
  private var values: [UInt64] = []  // priority << 32 | id

  /// The id that no token has.
  private static let free = UInt64.max

  init(capacity: Int) {
    var size = 64
    while size < capacity * 2 { size *= 2 }
    keys = Array(repeating: Self.free, count: size)
    values = Array(repeating: 0, count: size)
  }

  /// Notes a merge; the first one of a pair counts. At most the capacity may be added.
  mutating func insert(_ left: Int32, _ right: Int32, priority: UInt32, result: Int32) {
    let key = Self.key(left, right)
    let slot = find(key)
    guard keys[slot] == Self.free else { return }
    keys[slot] = key
    values[slot] = UInt64(priority) << 32 | UInt64(UInt32(bitPattern: result))
  }

  /// Priority (upper half) and result (lower half) of a pair; `UInt64.max` where it does not merge.
  @inline(__always)
  func lookup(_ left: Int32, _ right: Int32) -> UInt64 {
    let key = Self.key(left, right)
    let slot = find(key)
    return keys[slot] == key ? values[slot] : .max
  }

  @inline(__always)
  private static func key(_ left: Int32, _ right: Int32) -> UInt64 {
    UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
  }

  @inline(__always)
  private func find(_ key: UInt64) -> Int {
    let mask = keys.count - 1
    var slot = Int(truncatingIfNeeded: (key &* 0x9E37_79B9_7F4A_7C15) >> 32) & mask
    while keys[slot] != key, keys[slot] != Self.free { slot = (slot + 1) & mask }
    return slot
  }
}
