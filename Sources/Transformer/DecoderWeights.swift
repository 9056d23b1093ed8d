// The weights of a decoder in a backend's own layout, read tensor by tensor so that loading never holds the model
// twice.

import KindredCompute
import KindredModelFiles

/// A linear map with an optional bias.
public struct Linear<B: Backend> {
  /// `[outputs, inputs]`.
  let weight: B.Matrix
  /// `[1, outputs]`.
  let bias: B.Tensor?
  /// Whether it bears rounded weights.
  let roundsWeights: Bool

  /// The product of prepared rows with this map.
  func callAsFunction(
    into output: B.Tensor, accumulates: Bool = false, precision: ActivationPrecision
  ) -> Product<B> {
    Product(
      weight, bias: bias, into: output, accumulates: accumulates, precision: precision, roundsWeights: roundsWeights)
  }
}

/// All weights of a decoder.
public struct DecoderWeights<B: Backend>: @unchecked Sendable {
  // Tensors are written once, here, and only read afterwards.

  /// The weights of one layer.
  struct Layer {
    let attentionNorm: B.Tensor  // [1, E]
    let query: Linear<B>  // [H·D, E]
    let key: Linear<B>  // [G·D, E]
    let value: Linear<B>  // [G·D, E]
    let queryNorm: B.Tensor?  // [1, D]
    let keyNorm: B.Tensor?  // [1, D]
    let attentionOutput: Linear<B>  // [E, H·D]
    let feedForwardNorm: B.Tensor  // [1, E]
    let gate: Linear<B>  // [F, E]
    let up: Linear<B>  // [F, E]
    let down: Linear<B>  // [E, F]
  }

  /// The embedding table, [vocabulary, E]; it stays in the model file, of which only the rows in use are read.
  let embedding: ModelTensor
  let layers: [Layer]
  let outputNorm: B.Tensor  // [1, E]
  let output: Linear<B>  // [vocabulary, E]

  /// Bytes that the packed matrices occupy.
  public let byteCount: Int

  /// Reads every tensor of a model.
  ///
  /// - Parameters:
  ///   - configuration: the sizes that the tensors must have.
  ///   - container: the file.
  ///   - path: how errors name the file.
  ///   - naming: how the file calls its tensors.
  ///   - backend: where the weights go.
  ///   - progress: called after each layer with the share that is done, 0…1.
  /// - Throws: `ModelFileError` where a tensor is missing or has another shape than the configuration asks for.
  public init(
    _ configuration: DecoderConfiguration, from container: any TensorContainer, path: String, naming: TensorNaming,
    backend: B, progress: (Double) -> Void = { _ in }
  ) throws {
    var reader = WeightReader(container: container, path: path, naming: naming, backend: backend)
    let size = configuration.hiddenSize
    let attention = configuration.attention
    let queries = attention.queryHeads * attention.headDimension
    let keys = attention.kvHeads * attention.headDimension
    let normalizesHeads = configuration.normalizesQueriesAndKeys
    embedding = try reader.tensor(.embedding, shape: [configuration.vocabularySize, size])
    var layers: [Layer] = []
    for index in 0..<configuration.layerCount {
      layers.append(
        Layer(
          attentionNorm: try reader.vector(.attentionNorm(index), count: size),
          query: try reader.linear(.query(index), outputs: queries, inputs: size),
          key: try reader.linear(.key(index), outputs: keys, inputs: size),
          value: try reader.linear(.value(index), outputs: keys, inputs: size),
          queryNorm: normalizesHeads ? try reader.vector(.queryNorm(index), count: attention.headDimension) : nil,
          keyNorm: normalizesHeads ? try reader.vector(.keyNorm(index), count: attention.headDimension) : nil,
          attentionOutput: try reader.linear(.attentionOutput(index), outputs: size, inputs: queries),
          feedForwardNorm: try reader.vector(.feedForwardNorm(index), count: size),
          gate: try reader.linear(.gate(index), outputs: configuration.feedForwardSize, inputs: size),
          up: try reader.linear(.up(index), outputs: configuration.feedForwardSize, inputs: size),
          down: try reader.linear(.down(index), outputs: size, inputs: configuration.feedForwardSize)))
      progress(Double(index + 1) / Double(configuration.layerCount + 1))
    }
    self.layers = layers
    outputNorm = try reader.vector(.outputNorm, count: size)
    // A file without an output matrix ties it to the embedding.
    let role: TensorRole = reader.has(.output) ? .output : .embedding
    output = try reader.linear(role, outputs: configuration.vocabularySize, inputs: size)
    byteCount = reader.byteCount
    progress(1)
  }
}

/// What a tensor is for.
enum TensorRole {
  case embedding, outputNorm, output
  case attentionNorm(Int)
  case query(Int)
  case key(Int)
  case value(Int)
  case queryNorm(Int)
  case keyNorm(Int)
  case attentionOutput(Int)
  case feedForwardNorm(Int)
  case gate(Int)
  case up(Int)
  case down(Int)
}

extension TensorRole {
  /// Whether many rows may meet these weights rounded once more. Keys and values, small as they are, are not worth it;
  /// the attention output, and all of models with a narrow residual stream, moves predictions most.
  func roundsWeights(outputs: Int, inputs: Int) -> Bool {
    let narrowest = 768
    return switch self {
    case .query, .gate, .up: inputs >= narrowest
    case .down: outputs >= narrowest
    default: false
    }
  }
}

/// How a kind of file calls its tensors, without the suffix `.weight` or `.bias`.
public enum TensorNaming: Sendable {
  case gguf, huggingFace

  func name(of role: TensorRole) -> String {
    let isGGUF = self == .gguf
    func layer(_ index: Int, _ gguf: String, _ huggingFace: String) -> String {
      isGGUF ? "blk.\(index).\(gguf)" : "model.layers.\(index).\(huggingFace)"
    }
    return switch role {
    case .embedding: isGGUF ? "token_embd" : "model.embed_tokens"
    case .outputNorm: isGGUF ? "output_norm" : "model.norm"
    case .output: isGGUF ? "output" : "lm_head"
    case .attentionNorm(let index): layer(index, "attn_norm", "input_layernorm")
    case .query(let index): layer(index, "attn_q", "self_attn.q_proj")
    case .key(let index): layer(index, "attn_k", "self_attn.k_proj")
    case .value(let index): layer(index, "attn_v", "self_attn.v_proj")
    case .queryNorm(let index): layer(index, "attn_q_norm", "self_attn.q_norm")
    case .keyNorm(let index): layer(index, "attn_k_norm", "self_attn.k_norm")
    case .attentionOutput(let index): layer(index, "attn_output", "self_attn.o_proj")
    case .feedForwardNorm(let index): layer(index, "ffn_norm", "post_attention_layernorm")
    case .gate(let index): layer(index, "ffn_gate", "mlp.gate_proj")
    case .up(let index): layer(index, "ffn_up", "mlp.up_proj")
    case .down(let index): layer(index, "ffn_down", "mlp.down_proj")
    }
  }
}

/// Reads tensors by role, checks their shapes and hands them to the backend.
private struct WeightReader<B: Backend> {
  let container: any TensorContainer
  let path: String
  let naming: TensorNaming
  let backend: B
  private(set) var byteCount = 0

  init(container: any TensorContainer, path: String, naming: TensorNaming, backend: B) {
    self.container = container
    self.path = path
    self.naming = naming
    self.backend = backend
  }

  func has(_ role: TensorRole) -> Bool { container.tensorNames.contains(naming.name(of: role) + ".weight") }

  func tensor(_ role: TensorRole, suffix: String = "weight", shape: [Int]) throws -> ModelTensor {
    let name = "\(naming.name(of: role)).\(suffix)"
    guard let tensor = try container.tensor(named: name) else {
      throw ModelFileError(
        path: path, field: "tensor \"\(name)\"", problem: "expected shape \(shape), found no such tensor")
    }
    guard tensor.shape == shape else {
      throw ModelFileError(
        path: path, field: "tensor \"\(name)\"", problem: "expected shape \(shape), found \(tensor.shape)")
    }
    return tensor
  }

  func vector(_ role: TensorRole, suffix: String = "weight", count: Int) throws -> B.Tensor {
    let tensor = try tensor(role, suffix: suffix, shape: [count])
    let vector = try backend.makeTensor(rows: 1, columns: count)
    backend.write(tensor.floats(), to: vector)
    return vector
  }

  mutating func linear(_ role: TensorRole, outputs: Int, inputs: Int) throws -> Linear<B> {
    let tensor = try tensor(role, shape: [outputs, inputs])
    tensor.prefetch()
    let matrix = try tensor.withBytes { bytes in
      try backend.makeMatrix(type: tensor.type, rows: outputs, columns: inputs, bytes: bytes)
    }
    tensor.releasePages()
    byteCount += backend.byteCount(of: matrix)
    let biasName = "\(naming.name(of: role)).bias"
    let bias = try container.tensor(named: biasName) == nil ? nil : vector(role, suffix: "bias", count: outputs)
    return Linear(weight: matrix, bias: bias, roundsWeights: role.roundsWeights(outputs: outputs, inputs: inputs))
  }
}

extension ModelTensor {
  /// All elements as float.
  func floats() -> [Float] {
    withBytes { bytes in type.dequantize(bytes, count: elementCount) }
  }
}
