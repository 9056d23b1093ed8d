// A safetensors file: a JSON header, then the tensors end to end.
//
// Format: https://huggingface.co/docs/safetensors. What is refused follows the reference implementation, and
// was checked against PyPI `safetensors`.

import KindredCompute

/// A safetensors file, mapped into memory.
///
/// Tensors of F32, F16 and BF16 are read; one of another type is listed, and is an error when asked for.
public struct SafetensorsFile: TensorContainer {
  /// What the header's `__metadata__` says, by key.
  public let metadata: [String: String]
  private let table: TensorTable

  /// The longest header that the reference implementation reads.
  static let headerLimit = 100_000_000

  /// Opens the file at `path`.
  public init(path: String) throws(ModelFileError) {
    try self.init(file: try MappedFile(path: path))
  }

  init(file: MappedFile) throws(ModelFileError) {
    (metadata, table) = try file.withBytes { (bytes) throws(ModelFileError) in
      var reader = ByteReader(path: file.path, bytes: bytes)
      reader.field = "header length"
      let headerBytes: UInt64 = try reader.integer()
      let limit = min(Self.headerLimit, reader.remaining)
      guard headerBytes <= UInt64(limit) else {
        throw reader.error(
          at: 0, "expected a safetensors header of at most \(limit) bytes, found \(headerBytes)")
      }
      let header = try reader.take(Int(headerBytes))
      // Trailing space pads the header; the reference allows none in front.
      guard header.first == UInt8(ascii: "{") else {
        throw reader.error(at: 8, "expected a JSON object")
      }
      let json = try JSONValue(parsing: header, path: file.path, base: 8)
      let root = JSONNode(path: file.path, keyPath: "", value: json)
      let parsed = SafetensorsHeader(root: root, dataStart: reader.offset, fileBytes: bytes.count)
      return (
        try parsed.metadata(), try TensorTable(file: file, tensors: try parsed.tensors())
      )
    }
  }

  /// The tensors as the header describes them, in the order of their bytes in the file.
  public var tensors: [StoredTensor] { table.tensors }

  /// The path by which the file was opened.
  public var path: String { table.file.path }

  /// Bytes in the file.
  public var byteCount: Int { table.file.byteCount }

  public var tensorNames: [String] { table.tensors.map(\.name) }

  public func tensor(named name: String) throws(ModelFileError) -> ModelTensor? {
    try table.tensor(named: name)
  }
}

/// Reads the JSON header of a safetensors file.
private struct SafetensorsHeader {
  let root: JSONNode
  /// Where the header ends and offset 0 of the tensors is, in bytes of the file.
  let dataStart: Int
  let fileBytes: Int

  private static let metadataKey = "__metadata__"
  private static let types: [String: TensorType] = ["F32": .f32, "F16": .f16, "BF16": .bf16]

  func metadata() throws(ModelFileError) -> [String: String] {
    guard let object = try root.objectIfPresent(Self.metadataKey) else { return [:] }
    var metadata: [String: String] = [:]
    for member in object {
      guard case .string(let text) = member.value else {
        throw root.error("\(Self.metadataKey).\(member.key)", "expected a string, found \(member.value)")
      }
      metadata[member.key] = text
    }
    return metadata
  }

  /// All tensors by place in the file, which they fill from the header's end to the last byte without gaps.
  func tensors() throws(ModelFileError) -> [StoredTensor] {
    var tensors: [StoredTensor] = []
    for member in try root.object("") where member.key != Self.metadataKey {
      tensors.append(try tensor(member))
    }
    tensors.sort {
      ($0.extent.lowerBound, $0.extent.upperBound) < ($1.extent.lowerBound, $1.extent.upperBound)
    }
    var end = dataStart
    for tensor in tensors {
      guard tensor.extent.lowerBound == end else {
        throw error(
          tensor.name,
          "expected data_offsets from \(end - dataStart), where the tensor before "
            + "it ends, found \(tensor.extent.lowerBound - dataStart)")
      }
      end = tensor.extent.upperBound
    }
    guard end == fileBytes else {
      throw ModelFileError(
        path: root.path, offset: end,
        problem: "expected the tensors to fill the file up to byte \(fileBytes), found that they end here")
    }
    return tensors
  }

  private func tensor(_ member: JSONObject.Member) throws(ModelFileError) -> StoredTensor {
    let node = JSONNode(path: root.path, keyPath: "tensor \(member.key.quoted())", value: member.value)
    let typeName = try node.string("dtype")
    let type = Self.types[typeName]
    let shape = try node.elements("shape").map { (dimension) throws(ModelFileError) in
      try dimension.integer("", in: 0...Int.max)
    }
    let offsets = try node.elements("data_offsets").map { (offset) throws(ModelFileError) in
      try offset.integer("", in: 0...fileBytes - dataStart)
    }
    guard offsets.count == 2, offsets[0] <= offsets[1] else {
      throw node.error("data_offsets", "expected a start and an end that is not before it, found \(offsets)")
    }
    let byteCount = offsets[1] - offsets[0]
    let elements = elementCount(of: shape)
    // Types that are not read may have any size, though none below a bit.
    let isSizePossible =
      if let type { elements.flatMap { type.byteCount(elements: $0) } == byteCount } else {
        elements.map { $0 / 8 <= byteCount } ?? false
      }
    guard isSizePossible else {
      throw node.error(
        "data_offsets", "expected the bytes of \(typeName) of shape \(shape), found \(byteCount)")
    }
    return StoredTensor(
      name: member.key, type: type, typeName: typeName, shape: shape,
      extent: dataStart + offsets[0]..<dataStart + offsets[1])
  }

  private func error(_ tensor: String, _ problem: String) -> ModelFileError {
    ModelFileError(path: root.path, offset: dataStart, field: "tensor \(tensor.quoted())", problem: problem)
  }
}
