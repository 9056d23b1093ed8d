// GGUF model files, versions 2 and 3, little-endian.
//
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Checked against files written by PyPI
// `gguf`, and by truncating and altering them at every byte.

import KindredCompute

/// A GGUF file: metadata and tensors, mapped into memory.
///
/// Everything in the header is checked before use. A tensor of a type that ggml has but this package does not
/// read is listed, and is an error when asked for.
public struct GGUFFile: TensorContainer {
  /// The version of the format, 2 or 3.
  public let version: UInt32
  /// The metadata by key.
  public let metadata: [String: GGUFValue]
  /// Every tensor of the file is at a multiple of this many bytes from the first.
  public let alignment: Int
  private let table: TensorTable

  /// Opens the file at `path`.
  public init(path: String) throws(ModelFileError) {
    try self.init(file: try MappedFile(path: path))
  }

  init(file: MappedFile) throws(ModelFileError) {
    (version, metadata, alignment, table) = try file.withBytes { (bytes) throws(ModelFileError) in
      var header = GGUFHeaderReader(reader: ByteReader(path: file.path, bytes: bytes))
      let (version, tensorCount, metadataCount) = try header.preamble()
      let metadata = try header.metadata(count: metadataCount)
      let alignment = try header.alignment(metadata)
      let tensors = try header.tensors(count: tensorCount, alignment: alignment)
      return (version, metadata, alignment, try TensorTable(file: file, tensors: tensors))
    }
  }

  /// The tensors as the header describes them, in file order.
  public var tensors: [StoredTensor] { table.tensors }

  /// Bytes in the file.
  public var byteCount: Int { table.file.byteCount }

  public var tensorNames: [String] { table.tensors.map(\.name) }

  public func tensor(named name: String) throws(ModelFileError) -> ModelTensor? {
    try table.tensor(named: name)
  }
}

extension GGUFFile: MetadataSource {
  public var path: String { table.file.path }

  public func value(_ key: String) -> GGUFValue? { metadata[key] }

  public func fieldName(_ key: String) -> String { "metadata \(key.quoted())" }

  /// The strings stored under `key`, byte for byte.
  public func strings(_ key: String) throws(ModelFileError) -> ByteStrings {
    try required(key, "an array of strings", try stringsIfPresent(key))
  }

  /// The strings stored under `key`, or `nil` where the key is absent.
  public func stringsIfPresent(_ key: String) throws(ModelFileError) -> ByteStrings? {
    try typed(key, "an array of strings") { value in
      switch value {
      case .strings(let strings): strings
      default: nil
      }
    }
  }

  /// The numbers stored under `key`.
  public func floats(_ key: String) throws(ModelFileError) -> [Float] {
    try required(key, "an array of numbers", try floatsIfPresent(key))
  }

  /// The numbers stored under `key`, or `nil` where the key is absent.
  public func floatsIfPresent(_ key: String) throws(ModelFileError) -> [Float]? {
    try typed(key, "an array of numbers") { value in
      switch value {
      case .numbers(let numbers): numbers.floats
      default: nil
      }
    }
  }
}

/// Reads a GGUF header from front to back.
private struct GGUFHeaderReader {
  var reader: ByteReader

  /// Arrays may hold arrays this deep; the format sets no limit, and no known file goes beyond two.
  static let arrayDepthLimit = 4
  /// A key's count, an empty key, its value's type and the smallest value.
  static let minimumPairBytes = 8 + 4 + 1
  /// A name's count, the dimension count, the type and the offset.
  static let minimumTensorBytes = 8 + 4 + 4 + 8

  mutating func preamble() throws(ModelFileError) -> (version: UInt32, tensors: Int, pairs: Int) {
    reader.field = "magic"
    let magic = try reader.take(min(4, reader.remaining))
    guard magic.elementsEqual("GGUF".utf8) else {
      throw reader.error(
        at: 0,
        "expected a GGUF file, which begins with \"GGUF\", found "
          + String(decoding: magic, as: UTF8.self).quoted())
    }
    reader.field = "version"
    let version: UInt32 = try reader.integer()
    guard version == 2 || version == 3 else {
      let bigEndian = version.byteSwapped == 2 || version.byteSwapped == 3
      throw reader.error(
        at: 4,
        "expected 2 or 3, found \(bigEndian ? "\(version.byteSwapped) in big-endian order" : "\(version)")")
    }
    reader.field = "tensor count"
    let tensors = try reader.count(minimumBytes: Self.minimumTensorBytes)
    reader.field = "metadata count"
    let pairs = try reader.count(minimumBytes: Self.minimumPairBytes)
    return (version, tensors, pairs)
  }

  mutating func metadata(count: Int) throws(ModelFileError) -> [String: GGUFValue] {
    var metadata: [String: GGUFValue] = [:]
    for index in 0..<count {
      reader.field = "metadata key \(index)"
      let start = reader.offset
      let key = try reader.name()
      reader.field = "metadata \(key.quoted())"
      let value = try value(of: try valueType(), depth: 0)
      guard metadata.updateValue(value, forKey: key) == nil else {
        throw reader.error(at: start, "expected a new key, found this one for the second time")
      }
    }
    return metadata
  }

  func alignment(_ metadata: [String: GGUFValue]) throws(ModelFileError) -> Int {
    guard let value = metadata["general.alignment"] else { return 32 }
    guard let alignment = value.integer, alignment >= 8, alignment & (alignment - 1) == 0,
      alignment <= Int(UInt32.max)
    else {
      throw ModelFileError(
        path: reader.path, field: "metadata \"general.alignment\"",
        problem: "expected a power of two from 8 to 2147483648, found \(value)")
    }
    return alignment
  }

  private mutating func valueType() throws(ModelFileError) -> GGUFValueType {
    let id: UInt32 = try reader.integer()
    guard let type = GGUFValueType(rawValue: id) else {
      throw reader.error(at: reader.offset - 4, "expected a value type from 0 to 12, found \(id)")
    }
    return type
  }

  private mutating func value(of type: GGUFValueType, depth: Int) throws(ModelFileError) -> GGUFValue {
    if let byteCount = type.numberBytes {
      let bytes = try numbers(1, of: type, byteCount: byteCount)
      return GGUFNumbers.value(of: type, in: bytes, at: 0)
    }
    if type == .string { return .string(String(decoding: try reader.stringBytes(), as: UTF8.self)) }

    guard depth < Self.arrayDepthLimit else {
      throw reader.error("expected arrays nested at most \(Self.arrayDepthLimit) deep, found deeper ones")
    }
    let elementType = try valueType()
    let count = try reader.count(minimumBytes: elementType.minimumBytes)
    if let elementBytes = elementType.numberBytes {
      let bytes = try numbers(count, of: elementType, byteCount: count * elementBytes)
      return .numbers(GGUFNumbers(elementType, elementBytes: elementBytes, bytes: bytes))
    }
    if elementType == .string {
      var strings = ByteStrings()
      strings.reserve(count: count)
      for _ in 0..<count { strings.append(try reader.stringBytes()) }
      return .strings(strings)
    }
    var arrays: [GGUFValue] = []
    for _ in 0..<count { arrays.append(try value(of: .array, depth: depth + 1)) }
    return .arrays(arrays)
  }

  private mutating func numbers(
    _ count: Int, of type: GGUFValueType, byteCount: Int
  ) throws(ModelFileError) -> UnsafeRawBufferPointer {
    let start = reader.offset
    let bytes = try reader.take(byteCount)
    if type == .bool, let position = bytes.firstIndex(where: { $0 > 1 }) {
      throw reader.error(at: start + position, "expected a truth value 0 or 1, found \(bytes[position])")
    }
    return bytes
  }
}

// MARK: - Tensors

extension GGUFHeaderReader {
  /// A tensor whose offset is still relative to the data that follow the header.
  private typealias RelativeTensor = (tensor: StoredTensor, headerOffset: Int)

  mutating func tensors(count: Int, alignment: Int) throws(ModelFileError) -> [StoredTensor] {
    var relative: [RelativeTensor] = []
    for index in 0..<count {
      reader.field = "name of tensor \(index)"
      let start = reader.offset
      let name = try reader.name()
      reader.field = "tensor \(name.quoted())"
      relative.append((try tensor(name: name, alignment: alignment), start))
    }
    // Cannot overflow: the header lies within the file, and the alignment within 32 bits.
    let dataStart = (reader.offset + alignment - 1) / alignment * alignment
    return try placed(relative, dataStart: dataStart)
  }

  private mutating func tensor(name: String, alignment: Int) throws(ModelFileError) -> StoredTensor {
    let shapeOffset = reader.offset
    let dimensionCount: UInt32 = try reader.integer()
    guard dimensionCount <= 4 else {
      throw reader.error(at: shapeOffset, "expected at most 4 dimensions, found \(dimensionCount)")
    }
    var shape: [Int] = []
    for _ in 0..<dimensionCount {
      let dimension: UInt64 = try reader.integer()
      guard dimension > 0, let dimension = Int(exactly: dimension) else {
        throw reader.error(
          at: reader.offset - 8, "expected a dimension from 1 to \(Int.max), found \(dimension)")
      }
      shape.insert(dimension, at: 0)
    }
    let typeID: UInt32 = try reader.integer()
    guard let type = GGUFTensorType(id: typeID) else {
      throw reader.error(
        at: reader.offset - 4,
        "expected a type among \(TensorTable.readTypeNames), found unknown type \(typeID)")
    }
    guard let byteCount = type.byteCount(of: shape) else {
      throw reader.error(
        at: shapeOffset,
        "expected rows of whole blocks of \(type.blockElements) elements for \(type.name), and "
          + "a size that fits 63 bits, found shape \(shape)")
    }
    let rawOffset: UInt64 = try reader.integer()
    guard let offset = Int(exactly: rawOffset), offset % alignment == 0,
      case (let end, false) = offset.addingReportingOverflow(byteCount)
    else {
      throw reader.error(
        at: reader.offset - 8,
        "expected an offset inside the file that is a multiple of \(alignment), found "
          + "\(rawOffset)")
    }
    return StoredTensor(
      name: name, type: type.type, typeName: type.name, shape: shape, extent: offset..<end)
  }

  /// The tensors where they lie in the file, once it is sure that they do, and that no two share a byte.
  private func placed(_ tensors: [RelativeTensor], dataStart: Int) throws(ModelFileError) -> [StoredTensor] {
    let dataBytes = reader.bytes.count - dataStart
    for (tensor, headerOffset) in tensors where tensor.extent.upperBound > dataBytes {
      throw ModelFileError(
        path: reader.path, offset: headerOffset, field: "tensor \(tensor.name.quoted())",
        problem: "expected its bytes before the end of the file at byte \(reader.bytes.count), found "
          + "\(tensor.extent) of the data from byte \(dataStart) (an incomplete download?)")
    }
    let byPlace = tensors.sorted { $0.tensor.extent.lowerBound < $1.tensor.extent.lowerBound }
    for (first, second) in zip(byPlace, byPlace.dropFirst())
    where first.tensor.extent.upperBound > second.tensor.extent.lowerBound {
      throw ModelFileError(
        path: reader.path, offset: second.headerOffset, field: "tensor \(second.tensor.name.quoted())",
        problem: "expected bytes of its own, found \(second.tensor.extent), which overlaps tensor "
          + "\(first.tensor.name.quoted()) at \(first.tensor.extent)")
    }
    return tensors.map { tensor, _ in
      var tensor = tensor
      tensor.extent = tensor.extent.lowerBound + dataStart..<tensor.extent.upperBound + dataStart
      return tensor
    }
  }
}
