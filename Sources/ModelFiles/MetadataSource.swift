// Reading metadata as one type or not at all: the same few calls for GGUF metadata and for JSON files.

/// A metadata value whose type is known only when the file is read.
public protocol MetadataValue: Sendable, CustomStringConvertible {
  /// The value, where it is an integer that fits.
  var integer: Int? { get }
  /// The value, where it is a number.
  var double: Double? { get }
  /// The value, where it is true or false.
  var bool: Bool? { get }
  /// The value, where it is text.
  var string: String? { get }
  /// The values of a list of integers, or the one integer that some files store in place of a list.
  var integers: [Int]? { get }
  /// Whether the value says that there is none (JSON's `null`).
  var isNull: Bool { get }
}

/// Metadata values by key. Errors name the file, the key, what was expected and what was found.
public protocol MetadataSource: Sendable {
  associatedtype Value: MetadataValue

  /// The file that the metadata comes from.
  var path: String { get }

  /// The value stored under `key`.
  func value(_ key: String) -> Value?

  /// How an error names `key`.
  func fieldName(_ key: String) -> String
}

extension MetadataSource {
  /// The integer stored under `key`, which must lie in `range`.
  public func integer(
    _ key: String, in range: ClosedRange<Int> = Int.min...Int.max
  ) throws(ModelFileError) -> Int {
    try required(key, "an integer", try integerIfPresent(key, in: range))
  }

  /// The integer stored under `key`, or `nil` where the key or its value is absent.
  public func integerIfPresent(
    _ key: String, in range: ClosedRange<Int> = Int.min...Int.max
  ) throws(ModelFileError) -> Int? {
    guard let integer = try typed(key, "an integer", \.integer) else { return nil }
    guard range.contains(integer) else {
      throw error(
        key, "expected an integer from \(range.lowerBound) to \(range.upperBound), found \(integer)")
    }
    return integer
  }

  /// The number stored under `key`, be it an integer or not.
  public func double(_ key: String) throws(ModelFileError) -> Double {
    try required(key, "a number", try doubleIfPresent(key))
  }

  /// The number stored under `key`, or `nil` where the key or its value is absent.
  public func doubleIfPresent(_ key: String) throws(ModelFileError) -> Double? {
    try typed(key, "a number", \.double)
  }

  /// The truth value stored under `key`.
  public func bool(_ key: String) throws(ModelFileError) -> Bool {
    try required(key, "true or false", try boolIfPresent(key))
  }

  /// The truth value stored under `key`, or `nil` where the key or its value is absent.
  public func boolIfPresent(_ key: String) throws(ModelFileError) -> Bool? {
    try typed(key, "true or false", \.bool)
  }

  /// The text stored under `key`.
  public func string(_ key: String) throws(ModelFileError) -> String {
    try required(key, "a string", try stringIfPresent(key))
  }

  /// The text stored under `key`, or `nil` where the key or its value is absent.
  public func stringIfPresent(_ key: String) throws(ModelFileError) -> String? {
    try typed(key, "a string", \.string)
  }

  /// The integers stored under `key`; a single integer counts as a list of one.
  public func integers(_ key: String) throws(ModelFileError) -> [Int] {
    try required(key, "integers", try integersIfPresent(key))
  }

  /// The integers stored under `key`, or `nil` where the key or its value is absent.
  public func integersIfPresent(_ key: String) throws(ModelFileError) -> [Int]? {
    try typed(key, "integers", \.integers)
  }

  /// An error about `key`, for values of the right type that still cannot be.
  public func error(_ key: String, _ problem: String) -> ModelFileError {
    ModelFileError(path: path, field: fieldName(key), problem: problem)
  }

  func typed<T>(
    _ key: String, _ expected: String, _ convert: (Value) -> T?
  ) throws(ModelFileError) -> T? {
    guard let value = value(key), !value.isNull else { return nil }
    guard let converted = convert(value) else { throw error(key, "expected \(expected), found \(value)") }
    return converted
  }

  func required<T>(_ key: String, _ expected: String, _ value: T?) throws(ModelFileError) -> T {
    guard let value else { throw error(key, "expected \(expected), found nothing") }
    return value
  }
}
