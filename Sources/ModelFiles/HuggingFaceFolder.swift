// A model folder as Hugging Face `transformers` saves it: `config.json` beside safetensors weights.
//
// Checked against folders saved by PyPI `safetensors`, whole and sharded.

/// A folder with `config.json` and weights in `model.safetensors`, or in the shards that
/// `model.safetensors.index.json` lists.
public struct HuggingFaceFolder: TensorContainer {
  /// The folder.
  public let path: String
  /// `config.json`.
  public let config: JSONNode
  /// `generation_config.json`, where there is one.
  public let generationConfig: JSONNode?
  /// The weight files, in the order of their names.
  public let weights: [SafetensorsFile]

  /// Of all weight files.
  public let tensorNames: [String]
  /// The position in `weights` of the file that holds a tensor.
  private let weightPositions: [String: Int]

  /// Opens the folder at `path` and maps its weights.
  public init(path: String) throws(ModelFileError) {
    let files = FolderListing(path: path)
    guard files.contains("config.json") else {
      throw ModelFileError(path: path, problem: "expected a model folder with config.json, found none")
    }
    self.path = path
    config = try JSONNode(path: files.path(of: "config.json"))
    generationConfig =
      files.contains("generation_config.json")
      ? try JSONNode(path: files.path(of: "generation_config.json")) : nil

    if files.contains("model.safetensors") {
      let file = try SafetensorsFile(path: files.path(of: "model.safetensors"))
      weights = [file]
      tensorNames = file.tensorNames
      weightPositions = Dictionary(file.tensorNames.map { ($0, 0) }) { first, _ in first }
    } else if files.contains("model.safetensors.index.json") {
      (weights, tensorNames, weightPositions) = try Self.shards(in: files)
    } else {
      throw ModelFileError(
        path: path,
        problem: "expected weights in model.safetensors or model.safetensors.index.json, found neither")
    }
  }

  /// The tokenizer, `tokenizer.json`, where there is one.
  public var tokenizerPath: String? { FolderListing(path: path).pathIfPresent("tokenizer.json") }

  /// `tokenizer_config.json`, where there is one.
  public var tokenizerConfigPath: String? { FolderListing(path: path).pathIfPresent("tokenizer_config.json") }

  /// The tensors as the weight files describe them, those that the folder offers.
  public var tensors: [StoredTensor] {
    weights.enumerated().flatMap { position, file in
      file.tensors.filter { weightPositions[$0.name] == position }
    }
  }

  /// The chat template in a file of its own, `chat_template.jinja`, where there is one.
  public var chatTemplate: String? {
    get throws(ModelFileError) {
      guard let path = FolderListing(path: path).pathIfPresent("chat_template.jinja") else { return nil }
      let file = try MappedFile(path: path)
      guard file.byteCount <= 1 << 20 else {
        throw ModelFileError(path: path, problem: "expected at most \(1 << 20) bytes, found \(file.byteCount)")
      }
      return file.withBytes { String(decoding: $0, as: UTF8.self) }
    }
  }

  /// Bytes in all weight files.
  public var byteCount: Int { weights.reduce(0) { $0 + $1.byteCount } }

  public func tensor(named name: String) throws(ModelFileError) -> ModelTensor? {
    guard let position = weightPositions[name] else { return nil }
    return try weights[position].tensor(named: name)
  }

  private static func shards(
    in files: FolderListing
  ) throws(ModelFileError) -> ([SafetensorsFile], [String], [String: Int]) {
    let index = try JSONNode(path: files.path(of: "model.safetensors.index.json"))
    var shardNames: [String: String] = [:]
    for member in try index.object("weight_map") {
      let field = "weight_map.\(member.key)"
      guard case .string(let shard) = member.value else {
        throw index.error(field, "expected a file name, found \(member.value)")
      }
      // A name with a slash or a NUL could lead out of the folder.
      guard shard.hasSuffix(".safetensors"),
        !shard.utf8.contains(where: { $0 == UInt8(ascii: "/") || $0 == 0 })
      else {
        throw index.error(
          field, "expected the name of a .safetensors file in this folder, found \(member.value)")
      }
      guard shardNames.updateValue(shard, forKey: member.key) == nil else {
        throw index.error(field, "expected one file for this tensor, found two")
      }
    }
    let names = Set(shardNames.values).sorted()
    let weights = try names.map { (name) throws(ModelFileError) in
      try SafetensorsFile(path: files.path(of: name))
    }
    var tensorNames: [String] = []
    var positions: [String: Int] = [:]
    for (position, (file, fileName)) in zip(weights, names).enumerated() {
      for name in file.tensorNames where shardNames[name] == fileName {
        tensorNames.append(name)
        positions[name] = position
      }
    }
    if let name = shardNames.keys.filter({ positions[$0] == nil }).min() {
      throw index.error(
        "weight_map.\(name)", "expected this tensor in \(shardNames[name] ?? ""), found none there")
    }
    return (weights, tensorNames, positions)
  }
}
