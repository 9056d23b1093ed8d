// Where a decoder comes from: a file, a folder, or random weights of a published shape.

import KindredCompute
import KindredModelFiles

/// An opened model: its configuration, and its tensors still where they are.
public struct OpenedModel: Sendable {
  /// How the user named the model.
  public let name: String
  /// Sizes and kinds of its parts.
  public let configuration: DecoderConfiguration
  /// The file or folder, from which a tokenizer can be read; `nil` for random weights.
  public let file: ModelFile?

  let tensors: any TensorContainer
  let naming: TensorNaming

  /// Opens the model at `path`: a GGUF file or a Hugging Face folder.
  public init(path: String) throws(ModelFileError) {
    let file = try ModelFile(path: path)
    switch file {
    case .gguf(let gguf):
      configuration = try DecoderConfiguration(gguf: gguf)
      naming = .gguf
    case .huggingFace(let folder):
      configuration = try DecoderConfiguration(huggingFace: folder)
      naming = .huggingFace
    case .safetensors(let weights):
      throw ModelFileError(
        path: weights.path, problem: "expected a folder with config.json beside the weights, found weights alone")
    }
    name = path
    self.file = file
    tensors = file.tensors
  }

  /// Checks that keys and values can be stored in a type, before weights are read.
  ///
  /// - Throws: `ComputeError.headDimension`.
  public func check(kvType: KVType) throws(ComputeError) {
    try kvType.check(headDimension: configuration.attention.headDimension)
  }

  /// A model of random weights, for measuring speed and memory, which do not depend on them.
  public init(random model: RandomModel) {
    name = model.description
    configuration = model.configuration
    file = nil
    tensors = model
    naming = .gguf
  }
}

extension DecoderModel {
  /// Reads all weights of a model.
  ///
  /// - Parameters:
  ///   - source: the opened model.
  ///   - backend: where the weights go.
  ///   - progress: called with the share that is done, 0…1.
  /// - Throws: `ModelFileError` or `ComputeError`.
  public init(_ source: OpenedModel, backend: B, progress: (Double) -> Void = { _ in }) throws {
    self.init(
      configuration: source.configuration,
      weights: try DecoderWeights(
        source.configuration, from: source.tensors, path: source.name, naming: source.naming, backend: backend,
        progress: progress),
      backend: backend)
  }
}
