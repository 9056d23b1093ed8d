// From a file's metadata to a configuration. What GGUF and Hugging Face call differently is read here; what sets a
// family apart stands in its own file under `Families/`.

import KindredCompute
import KindredModelFiles

/// A series of models that share an architecture.
///
/// A new family is one file, one row in ``all`` and one golden test.
public struct ModelFamily: Sendable {
  /// Its name in reports.
  public let name: String
  /// `general.architecture` values of its GGUF files.
  public let ggufArchitectures: [String]
  /// `model_type` values of its `config.json` files.
  public let huggingFaceTypes: [String]
  /// Sets what is particular to the family, or refuses the file.
  let refine: @Sendable (inout DecoderConfiguration, ConfigurationFile) throws(ModelFileError) -> Void

  /// Every family that can be run.
  public static let all: [ModelFamily] = [.qwen2, .qwen3, .llama, .mistral]
}

/// Where a configuration is read from.
enum ConfigurationFile {
  case gguf(GGUFFile, architecture: String)
  case huggingFace(HuggingFaceFolder)

  /// Refuses a model whose layers look back only over a sliding window shorter than its context.
  func requireFullAttention(contextLength: Int) throws(ModelFileError) {
    let window: Int?
    switch self {
    case .gguf(let file, let architecture):
      window = try file.integerIfPresent("\(architecture).attention.sliding_window")
    case .huggingFace(let folder):
      // Qwen2 files name a window and switch it off in a second field.
      let isOff = try folder.config.boolIfPresent("use_sliding_window") == false
      window = isOff ? nil : try folder.config.integerIfPresent("sliding_window")
    }
    guard let window, window > 0, window < contextLength else { return }
    throw error(
      "sliding window", "expected full attention, found a window of \(window) positions, which is not supported")
  }

  func error(_ field: String, _ problem: String) -> ModelFileError {
    switch self {
    case .gguf(let file, _): ModelFileError(path: file.path, field: field, problem: problem)
    case .huggingFace(let folder): ModelFileError(path: folder.config.path, field: field, problem: problem)
    }
  }
}

extension DecoderConfiguration {
  private static let sizes = 1...sizeLimit
  private static let headLimit = 1024

  /// Reads the configuration of a GGUF file.
  public init(gguf file: GGUFFile) throws(ModelFileError) {
    let architecture = try file.string("general.architecture")
    guard let family = ModelFamily.all.first(where: { $0.ggufArchitectures.contains(architecture) }) else {
      let known = ModelFamily.all.flatMap(\.ggufArchitectures).joined(separator: ", ")
      throw file.error("general.architecture", "expected one of \(known), found \"\(architecture)\"")
    }
    func size(_ key: String) throws(ModelFileError) -> Int {
      try file.integer("\(architecture).\(key)", in: Self.sizes)
    }
    let hidden = try size("embedding_length")
    let heads = try size("attention.head_count")
    let headDimension =
      try file.integerIfPresent("\(architecture).attention.key_length", in: Self.sizes) ?? hidden / heads
    let source = ConfigurationFile.gguf(file, architecture: architecture)
    guard let embedding = try file.tensor(named: "token_embd.weight"), embedding.shape.count == 2,
      Self.sizes.contains(embedding.shape[0])
    else {
      throw source.error(
        "tensor \"token_embd.weight\"", "expected a matrix of up to \(Self.sizeLimit) rows, found none")
    }
    self.family = family.name
    vocabularySize = embedding.shape[0]
    layerCount = try size("block_count")
    hiddenSize = hidden
    feedForwardSize = try size("feed_forward_length")
    attention = AttentionShape(
      queryHeads: heads,
      kvHeads: try file.integerIfPresent("\(architecture).attention.head_count_kv", in: Self.sizes) ?? heads,
      headDimension: headDimension)
    normEpsilon = Float(try file.double("\(architecture).attention.layer_norm_rms_epsilon"))
    contextLength = try size("context_length")
    rotary = RotaryConfiguration(
      base: try file.doubleIfPresent("\(architecture).rope.freq_base") ?? 10_000,
      dimension: try file.integerIfPresent("\(architecture).rope.dimension_count", in: Self.sizes) ?? headDimension,
      interleaved: false, scaling: try Self.scaling(gguf: file, architecture: architecture))
    try family.refine(&self, source)
    try validate(source)
  }

  /// Reads the configuration of a Hugging Face folder.
  public init(huggingFace folder: HuggingFaceFolder) throws(ModelFileError) {
    let config = folder.config
    let type = try config.string("model_type")
    guard let family = ModelFamily.all.first(where: { $0.huggingFaceTypes.contains(type) }) else {
      let known = ModelFamily.all.flatMap(\.huggingFaceTypes).joined(separator: ", ")
      throw config.error("model_type", "expected one of \(known), found \"\(type)\"")
    }
    let source = ConfigurationFile.huggingFace(folder)
    let hidden = try config.integer("hidden_size", in: Self.sizes)
    let heads = try config.integer("num_attention_heads", in: Self.sizes)
    let headDimension = try config.integerIfPresent("head_dim", in: Self.sizes) ?? hidden / heads
    if let activation = try config.stringIfPresent("hidden_act"), activation != "silu" {
      throw config.error("hidden_act", "expected \"silu\", found \"\(activation)\"")
    }
    self.family = family.name
    vocabularySize = try config.integer("vocab_size", in: Self.sizes)
    layerCount = try config.integer("num_hidden_layers", in: Self.sizes)
    hiddenSize = hidden
    feedForwardSize = try config.integer("intermediate_size", in: Self.sizes)
    attention = AttentionShape(
      queryHeads: heads, kvHeads: try config.integerIfPresent("num_key_value_heads", in: Self.sizes) ?? heads,
      headDimension: headDimension)
    normEpsilon = Float(try config.doubleIfPresent("rms_norm_eps") ?? 1e-6)
    contextLength = try config.integerIfPresent("max_position_embeddings", in: Self.sizes) ?? 2048
    // Newer files keep the base with the scaling, under `rope_parameters`.
    let parameters = try config.objectIfPresent("rope_parameters") == nil ? "rope_scaling" : "rope_parameters"
    let base = try config.doubleIfPresent("rope_theta")
    let newerBase = try config.doubleIfPresent("\(parameters).rope_theta")
    rotary = RotaryConfiguration(
      base: base ?? newerBase ?? 10_000, dimension: headDimension, interleaved: false,
      scaling: try Self.scaling(huggingFace: config, parameters))
    try family.refine(&self, source)
    try validate(source)
  }

  private static func scaling(
    gguf file: GGUFFile, architecture: String
  ) throws(ModelFileError) -> RotaryConfiguration.Scaling {
    if let factors = try file.tensor(named: "rope_freqs.weight") {
      return .divisors(factors.floats())
    }
    let key = "\(architecture).rope.scaling.type"
    switch try file.stringIfPresent(key) {
    case nil, "none": return .none
    case "linear": return .linear(factor: try file.double("\(architecture).rope.scaling.factor"))
    case .some(let other): throw file.error(key, "expected none or linear, found \"\(other)\"")
    }
  }

  private static func scaling(
    huggingFace config: JSONNode, _ parent: String
  ) throws(ModelFileError) -> RotaryConfiguration.Scaling {
    let type = try config.stringIfPresent("\(parent).rope_type")
    let olderType = try config.stringIfPresent("\(parent).type")
    switch type ?? olderType {
    case nil, "default": return .none
    case "linear": return .linear(factor: try config.double("\(parent).factor"))
    case "llama3":
      return .llama3(
        factor: try config.double("\(parent).factor"),
        lowFrequencyFactor: try config.double("\(parent).low_freq_factor"),
        highFrequencyFactor: try config.double("\(parent).high_freq_factor"),
        originalContext: try config.integer("\(parent).original_max_position_embeddings", in: sizes))
    case .some(let other):
      throw config.error("\(parent).rope_type", "expected default, linear or llama3, found \"\(other)\"")
    }
  }

  /// Refuses sizes that do not fit together, before anything is allocated for them.
  private func validate(_ source: ConfigurationFile) throws(ModelFileError) {
    let heads = attention.queryHeads
    let groups = attention.kvHeads
    // Far above every published model; each piece of work of a parallel region is one head of some rows.
    guard heads <= Self.headLimit else {
      throw source.error("heads", "expected at most \(Self.headLimit), found \(heads)")
    }
    guard heads % groups == 0 else {
      throw source.error("heads", "expected a multiple of the \(groups) KV heads, found \(heads) query heads")
    }
    guard rotary.dimension % 2 == 0, rotary.dimension <= attention.headDimension else {
      throw source.error(
        "rotary dimension", "expected an even number up to \(attention.headDimension), found \(rotary.dimension)")
    }
    guard (1...4096).contains(attention.headDimension) else {
      throw source.error("head dimension", "expected 1 to 4096, found \(attention.headDimension)")
    }
    guard normEpsilon >= 0, normEpsilon.isFinite, rotary.base > 0, rotary.base.isFinite else {
      throw source.error(
        "norm epsilon and rotary base", "expected positive numbers, found \(normEpsilon), \(rotary.base)")
    }
    if case .divisors(let divisors) = rotary.scaling, divisors.count != rotary.dimension / 2 {
      throw source.error(
        "tensor \"rope_freqs.weight\"", "expected \(rotary.dimension / 2) elements, found \(divisors.count)")
    }
    // What scaling divides by is checked by what becomes of it.
    if let index = rotary.frequencies.firstIndex(where: { !($0 >= 0 && $0.isFinite) }) {
      throw source.error(
        "rotary scaling", "expected frequencies that are finite, found \(rotary.frequencies[index]) at \(index)")
    }
  }
}
