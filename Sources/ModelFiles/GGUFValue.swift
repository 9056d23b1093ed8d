// GGUF metadata values.
//
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Arrays are kept in bulk, not element by
// element: a vocabulary is 150,000 strings and as many merges. Checked against files that PyPI `gguf` wrote.

/// The types of GGUF metadata values, by their ids in the file.
public enum GGUFValueType: UInt32, Sendable, CaseIterable {
  case uint8 = 0
  case int8 = 1
  case uint16 = 2
  case int16 = 3
  case uint32 = 4
  case int32 = 5
  case float32 = 6
  case bool = 7
  case string = 8
  case array = 9
  case uint64 = 10
  case int64 = 11
  case float64 = 12

  /// Bytes of a number of this type, or `nil` for strings and arrays, whose size varies.
  var numberBytes: Int? {
    switch self {
    case .uint8, .int8, .bool: 1
    case .uint16, .int16: 2
    case .uint32, .int32, .float32: 4
    case .uint64, .int64, .float64: 8
    case .string, .array: nil
    }
  }

  /// Bytes that a value of this type takes at least: a string its count, an array its type and its count.
  var minimumBytes: Int {
    switch self {
    case .string: 8
    case .array: 12
    default: numberBytes ?? 1
    }
  }
}

/// A GGUF metadata value.
public enum GGUFValue: Sendable, Equatable {
  case unsigned(UInt64)
  case signed(Int64)
  case float(Double)
  case bool(Bool)
  /// Text; bytes that are no UTF-8 are replaced by U+FFFD.
  case string(String)
  /// An array of strings, byte for byte as in the file.
  case strings(ByteStrings)
  /// An array of numbers or truth values.
  case numbers(GGUFNumbers)
  /// An array of arrays.
  case arrays([GGUFValue])
}

extension GGUFValue: MetadataValue {
  public var integer: Int? {
    switch self {
    case .unsigned(let value): Int(exactly: value)
    case .signed(let value): Int(exactly: value)
    default: nil
    }
  }

  public var double: Double? {
    switch self {
    case .unsigned(let value): Double(value)
    case .signed(let value): Double(value)
    case .float(let value): value
    default: nil
    }
  }

  public var bool: Bool? {
    if case .bool(let value) = self { value } else { nil }
  }

  public var string: String? {
    if case .string(let value) = self { value } else { nil }
  }

  public var integers: [Int]? {
    guard case .numbers(let numbers) = self else { return integer.map { [$0] } }
    return numbers.converted(\.integer)
  }

  public var isNull: Bool { false }

  /// The value as one line; of a long array its first elements and its count.
  public var description: String {
    switch self {
    case .unsigned(let value): "\(value)"
    case .signed(let value): "\(value)"
    case .float(let value): Double(Float(value)) == value ? "\(Float(value))" : "\(value)"
    case .bool(let value): "\(value)"
    case .string(let value): value.quoted()
    case .strings(let values):
      Self.list(values.lazy.map { String(decoding: $0, as: UTF8.self).quoted(limit: 20) })
    case .numbers(let values): Self.list(values.lazy.map(\.description))
    case .arrays(let values): Self.list(values.lazy.map(\.description))
    }
  }

  private static func list(_ elements: some Collection<String>) -> String {
    let shown = elements.prefix(6).joined(separator: ", ")
    return elements.count > 6 ? "[\(shown), … \(elements.count) in all]" : "[\(shown)]"
  }
}

/// Strings kept end to end in one buffer, byte for byte: they need not be valid UTF-8.
public struct ByteStrings: Sendable, Equatable, RandomAccessCollection {
  private var bytes: [UInt8] = []
  private var ends: [Int] = []

  public init() {}

  public var startIndex: Int { 0 }
  public var endIndex: Int { ends.count }

  /// The bytes of string `position`.
  public subscript(position: Int) -> ArraySlice<UInt8> {
    bytes[(position == 0 ? 0 : ends[position - 1])..<ends[position]]
  }

  mutating func reserve(count: Int) { ends.reserveCapacity(count) }

  mutating func append(_ string: UnsafeRawBufferPointer) {
    bytes.append(contentsOf: string)
    ends.append(bytes.count)
  }
}

/// An array of numbers or truth values of one type, as its bytes in the file.
public struct GGUFNumbers: Sendable, Equatable, RandomAccessCollection {
  /// The type of every element; neither `string` nor `array`.
  public let elementType: GGUFValueType
  /// `count` little-endian values of `elementType`, end to end.
  private let bytes: [UInt8]
  private let elementBytes: Int

  /// Takes whole elements of `elementType`, which take `elementBytes` each.
  init(_ elementType: GGUFValueType, elementBytes: Int, bytes: UnsafeRawBufferPointer) {
    self.elementType = elementType
    self.elementBytes = elementBytes
    self.bytes = Array(bytes)
  }

  public var startIndex: Int { 0 }
  public var endIndex: Int { bytes.count / elementBytes }

  public subscript(position: Int) -> GGUFValue {
    precondition(indices.contains(position), "element \(position) of \(count)")
    return bytes.withUnsafeBytes { Self.value(of: elementType, in: $0, at: position * elementBytes) }
  }

  /// All elements as `Float`, or `nil` where they are truth values.
  public var floats: [Float]? { converted { value in value.double.map { Float($0) } } }

  func converted<T>(_ convert: (GGUFValue) -> T?) -> [T]? {
    var converted: [T] = []
    converted.reserveCapacity(count)
    for element in self {
      guard let value = convert(element) else { return nil }
      converted.append(value)
    }
    return converted
  }

  /// The number of `type` that begins at `offset`; `bytes` hold all of it.
  static func value(of type: GGUFValueType, in bytes: UnsafeRawBufferPointer, at offset: Int) -> GGUFValue {
    func load<T: FixedWidthInteger>(_: T.Type) -> T {
      T(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: T.self))
    }
    switch type {
    case .uint8: return .unsigned(UInt64(load(UInt8.self)))
    case .int8: return .signed(Int64(load(Int8.self)))
    case .uint16: return .unsigned(UInt64(load(UInt16.self)))
    case .int16: return .signed(Int64(load(Int16.self)))
    case .uint32: return .unsigned(UInt64(load(UInt32.self)))
    case .int32: return .signed(Int64(load(Int32.self)))
    case .uint64: return .unsigned(load(UInt64.self))
    case .int64: return .signed(load(Int64.self))
    case .float32: return .float(Double(Float(bitPattern: load(UInt32.self))))
    case .float64: return .float(Double(bitPattern: load(UInt64.self)))
    case .bool: return .bool(load(UInt8.self) != 0)
    case .string, .array: preconditionFailure("\(type) is no number")
    }
  }
}
