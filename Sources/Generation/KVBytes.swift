// What caches hold, as every report states it.

/// Bytes allocated for keys and values. Encoded as the command line's JSON, with the total.
public struct KVBytes: Sendable, Hashable, Codable {
  /// The large model's.
  public var large: Int
  /// The small model's; 0 where none runs.
  public var small: Int
  /// What the large model alone allocates for the same tokens in the same type.
  public var unmapped: Int

  public init(large: Int, small: Int, unmapped: Int) {
    self.large = large
    self.small = small
    self.unmapped = unmapped
  }

  /// Both models'.
  public var total: Int { large + small }

  public static func + (first: KVBytes, second: KVBytes) -> KVBytes {
    KVBytes(
      large: first.large + second.large, small: first.small + second.small, unmapped: first.unmapped + second.unmapped)
  }

  private enum CodingKeys: String, CodingKey {
    case total = "kv_bytes"
    case large = "kv_bytes_large"
    case small = "kv_bytes_small"
    case unmapped = "kv_bytes_unmapped"
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    large = try container.decode(Int.self, forKey: .large)
    small = try container.decode(Int.self, forKey: .small)
    unmapped = try container.decode(Int.self, forKey: .unmapped)
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(total, forKey: .total)
    try container.encode(large, forKey: .large)
    try container.encode(small, forKey: .small)
    try container.encode(unmapped, forKey: .unmapped)
  }
}
