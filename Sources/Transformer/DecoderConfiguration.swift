// The blueprint of a decoder: sizes and options, without weights or state.

import Foundation
import KindredAttention
import KindredCompute

/// Sizes and options of a decoder-only transformer with RMSNorm, grouped-query attention, rotary positions and a
/// SwiGLU feed-forward part.
public struct DecoderConfiguration: Sendable, Hashable {
  /// The family that the model belongs to, such as `qwen2`.
  public var family: String
  /// Entries of the embedding table, at least the tokenizer's vocabulary.
  public var vocabularySize: Int
  /// Layers, `L`.
  public var layerCount: Int
  /// Elements of a hidden state, `E`.
  public var hiddenSize: Int
  /// Elements of the feed-forward part, `F`.
  public var feedForwardSize: Int
  /// The heads of a layer.
  public var attention: AttentionShape
  /// Added to the mean square in RMSNorm.
  public var normEpsilon: Float
  /// Rotary positions.
  public var rotary: RotaryConfiguration
  /// Positions that the model was made for.
  public var contextLength: Int
  /// Whether queries and keys are normalised head by head before rotation (Qwen3).
  public var normalizesQueriesAndKeys = false
  /// Whether these are some layers of a deeper model: the last one then stands for one in the middle, and is run whole
  /// also where nobody wants the model's output.
  public var isSlice = false

  /// The layers of attention, as a plan sees them.
  public var shape: ModelShape { ModelShape(layerCount: layerCount, attention: attention) }

  /// Largest accepted size of any one dimension: far above every published model, and low enough that no product
  /// of two sizes overflows.
  package static let sizeLimit = 1 << 24
}

/// Rotary position embedding (Su et al. 2021) and its extensions to longer contexts.
public struct RotaryConfiguration: Sendable, Hashable {
  /// How frequencies are stretched for contexts longer than those trained on.
  public enum Scaling: Sendable, Hashable {
    case none
    /// All frequencies divided by a factor.
    case linear(factor: Double)
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, a linear transition between.
    case llama3(factor: Double, lowFrequencyFactor: Double, highFrequencyFactor: Double, originalContext: Int)
    /// One divisor for each frequency, as GGUF stores in `rope_freqs.weight`.
    case divisors([Float])
  }

  /// The base of the geometric series of wavelengths.
  public var base: Double
  /// Elements of a head that are rotated.
  public var dimension: Int
  /// Whether rotated pairs are neighbours (GGUF's `llama` architecture) instead of half a head apart.
  public var interleaved: Bool
  /// How angles are stretched for long contexts.
  public var scaling: Scaling

  /// Radians per position, `[dimension / 2]`.
  public var frequencies: [Double] {
    (0..<dimension / 2).map { index in
      let frequency = 1 / pow(base, Double(2 * index) / Double(dimension))
      switch scaling {
      case .none:
        return frequency
      case .linear(let factor):
        return frequency / factor
      case .divisors(let divisors):
        return frequency / Double(divisors[index])
      case .llama3(let factor, let low, let high, let originalContext):
        let wavelength = 2 * Double.pi / frequency
        if wavelength < Double(originalContext) / high { return frequency }
        if wavelength > Double(originalContext) / low { return frequency / factor }
        let kept = (Double(originalContext) / wavelength - low) / (high - low)
        return (1 - kept) * frequency / factor + kept * frequency
      }
    }
  }
}
