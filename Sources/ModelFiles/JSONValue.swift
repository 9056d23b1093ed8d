// JSON as the files beside model weights use it: `config.json`, `tokenizer.json`, safetensors headers.
//
// Foundation's decoder is not used: it drops all but one of the keys that differ in bytes but are canonically
// equivalent in Unicode, of which vocabularies have many, says nothing of where an error is, and takes 0.7 s
// for a tokenizer of 7 MB, which the parser here reads in a tenth of that.

/// A JSON value.
public enum JSONValue: Sendable, Equatable {
  case null
  case bool(Bool)
  /// A number without fraction and exponent that fits 64 bits.
  case integer(Int)
  /// Any other number.
  case number(Double)
  case string(String)
  case array([JSONValue])
  case object(JSONObject)
}

/// The members of a JSON object, in the order of the file.
public struct JSONObject: Sendable, Equatable, RandomAccessCollection {
  /// One key and its value.
  public struct Member: Sendable, Equatable {
    /// The name, its escapes resolved.
    public let key: String
    /// What stands behind the colon.
    public let value: JSONValue
  }

  private var members: [Member] = []

  public init() {}

  public var startIndex: Int { 0 }
  public var endIndex: Int { members.count }
  public subscript(position: Int) -> Member { members[position] }

  /// The value of `key`: the last one, as in most readers of JSON, where the key is repeated.
  ///
  /// Keys are compared byte by byte. Takes time in proportion to the number of members.
  public subscript(key: String) -> JSONValue? {
    members.last { $0.key.utf8.elementsEqual(key.utf8) }?.value
  }

  mutating func append(key: String, _ value: JSONValue) {
    members.append(Member(key: key, value: value))
  }
}

extension JSONObject: ExpressibleByDictionaryLiteral {
  public init(dictionaryLiteral elements: (String, JSONValue)...) {
    for (key, value) in elements { append(key: key, value) }
  }
}

extension JSONValue: MetadataValue {
  public var integer: Int? {
    if case .integer(let value) = self { value } else { nil }
  }

  public var double: Double? {
    switch self {
    case .integer(let value): Double(value)
    case .number(let value): value
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
    guard case .array(let elements) = self else { return integer.map { [$0] } }
    let integers = elements.compactMap(\.integer)
    return integers.count == elements.count ? integers : nil
  }

  public var isNull: Bool { self == .null }

  /// The value as one short line: of an array or an object only its size.
  public var description: String {
    switch self {
    case .null: "null"
    case .bool(let value): "\(value)"
    case .integer(let value): "\(value)"
    case .number(let value): "\(value)"
    case .string(let value): value.quoted()
    case .array(let elements): "an array of \(elements.count)"
    case .object(let object): "an object of \(object.count)"
    }
  }
}

extension JSONValue: Encodable {
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    switch self {
    case .null: try container.encodeNil()
    case .bool(let value): try container.encode(value)
    case .integer(let value): try container.encode(value)
    case .number(let value): try container.encode(value)
    case .string(let value): try container.encode(value)
    case .array(let elements): try container.encode(elements)
    case .object(let object):
      try container.encode(Dictionary(object.map { ($0.key, $0.value) }) { _, last in last })
    }
  }
}

/// A value in a JSON file that knows where it is: errors name the file and the key path.
public struct JSONNode: Sendable {
  /// The file.
  public let path: String
  /// How to get from the file's outermost value to this one: `model.vocab`, or empty.
  public let keyPath: String
  /// The value itself.
  public let value: JSONValue

  /// The outermost value of the file at `path`.
  public init(path: String) throws(ModelFileError) {
    let file = try MappedFile(path: path)
    guard file.byteCount <= 1 << 28 else {
      throw ModelFileError(
        path: path, problem: "expected JSON of at most \(1 << 28) bytes, found \(file.byteCount)")
    }
    let value = try file.withBytes { (bytes) throws(ModelFileError) in
      try JSONValue(parsing: bytes, path: path)
    }
    self.init(path: path, keyPath: "", value: value)
  }

  /// A value that was found in the file at `path`.
  package init(path: String, keyPath: String, value: JSONValue) {
    self.path = path
    self.keyPath = keyPath
    self.value = value
  }

  /// The value at `key` with its place; JSON's `null` where there is none.
  public func child(_ key: String) -> JSONNode {
    JSONNode(path: path, keyPath: fieldName(key), value: value(key) ?? .null)
  }

  /// The elements of the array at `key`.
  public func elements(_ key: String) throws(ModelFileError) -> [JSONNode] {
    let elements = try required(
      key, "an array",
      try typed(key, "an array") { value in
        if case .array(let elements) = value { elements } else { nil }
      })
    return elements.enumerated().map { index, element in
      JSONNode(path: path, keyPath: "\(fieldName(key))[\(index)]", value: element)
    }
  }

  /// The members of the object at `key`.
  public func object(_ key: String) throws(ModelFileError) -> JSONObject {
    try required(key, "an object", try objectIfPresent(key))
  }

  /// The members of the object at `key`, or `nil` where the key or its value is absent.
  public func objectIfPresent(_ key: String) throws(ModelFileError) -> JSONObject? {
    try typed(key, "an object") { value in
      if case .object(let object) = value { object } else { nil }
    }
  }
}

extension JSONNode: MetadataSource {
  /// The value at `key`, whose dots lead into objects: `rope_scaling.factor`. An empty key is this node.
  public func value(_ key: String) -> JSONValue? {
    var value = value
    for step in key.split(separator: ".") {
      guard case .object(let object) = value, let next = object[String(step)] else { return nil }
      value = next
    }
    return value
  }

  public func fieldName(_ key: String) -> String {
    [keyPath, key].filter { !$0.isEmpty }.joined(separator: ".")
  }
}
