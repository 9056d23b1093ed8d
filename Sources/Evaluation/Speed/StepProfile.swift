// Where the time of a step goes: the operations of a pass, products by their place in the model.

import KindredCompute
import KindredTransformer

/// A part of a model's work, in the order of a pass.
public enum ModelPart: String, Sendable, Hashable, CaseIterable, Codable {
  case norm = "RMSNorm"
  case queryKeyValue = "Q, K, V"
  /// Of mapped layers V, of a prompt's last layer K and V.
  case value = "V alone, K and V"
  case headNorm = "norms of Q and K"
  case rotation = "RoPE"
  case keyStorage = "storing K"
  case valueStorage = "storing V"
  case attention
  case borrowedAttention = "attention, borrowed"
  case lentRows = "rows lent"
  case preparation = "quantising attention"
  case attentionOutput = "attention output"
  case gateUp = "gate, up, SiLU"
  case down
  case output
  case otherProducts = "other products"
  case packing = "packing weights"
  case copies
  case allocation
  case rest = "outside of operations"

  /// The part that an operation belongs to. Products are told apart by shape alone: that is all a backend sees.
  init(_ operation: ProfiledOperation, in model: DecoderConfiguration) {
    switch operation {
    case .allocate: self = .allocation
    case .pack: self = .packing
    case .copy: self = .copies
    case .normalize: self = .norm
    case .normalizeHeads: self = .headNorm
    case .prepare: self = .preparation
    case .rotate: self = .rotation
    case .storeKeys: self = .keyStorage
    case .storeValues: self = .valueStorage
    case .attend: self = .attention
    case .probabilities: self = .lentRows
    case .borrow: self = .borrowedAttention
    case .multiply(let products): self = Self.part(of: products, in: model)
    }
  }

  private static func part(of products: [ProfiledProduct], in model: DecoderConfiguration) -> ModelPart {
    let heads = model.attention
    guard let first = products.first else { return .otherProducts }
    let shapes = Set(products.map { [$0.matrix.outputs, $0.matrix.inputs] })
    switch (products.count, first.accumulates) {
    case (1, true) where shapes == [[model.hiddenSize, heads.queryHeads * heads.headDimension]]:
      return .attentionOutput
    case (1, true) where shapes == [[model.hiddenSize, model.feedForwardSize]]: return .down
    case (1, false) where shapes == [[model.vocabularySize, model.hiddenSize]]: return .output
    case (1, false) where shapes == [[heads.kvHeads * heads.headDimension, model.hiddenSize]]: return .value
    case (2, false) where shapes == [[heads.kvHeads * heads.headDimension, model.hiddenSize]]: return .value
    case (2, false) where shapes == [[model.feedForwardSize, model.hiddenSize]]: return .gateUp
    case (3, false) where shapes.contains([heads.queryHeads * heads.headDimension, model.hiddenSize]):
      return .queryKeyValue
    default: return .otherProducts
    }
  }
}

/// Where the time of a step goes: a prompt in prefill, a token of every sequence in decode.
public struct StepProfile: Sendable, Hashable {
  /// One part's share.
  public struct Row: Sendable, Hashable, Encodable {
    /// What was timed.
    public var part: ModelPart
    /// Operations of the backend, over all layers.
    public var callsPerStep: Double
    /// Wall-clock time.
    public var secondsPerStep: Double
    /// Of the step's time.
    public var share: Double
    /// Additions and multiplications of products per second; `nil` for what is no product.
    public var operationsPerSecond: Double?
    /// Bytes of weights per second; `nil` for what is no product.
    public var weightBytesPerSecond: Double?

    private enum CodingKeys: String, CodingKey {
      case part = "operation"
      case callsPerStep = "calls_per_step"
      case secondsPerStep = "seconds_per_step"
      case share
      case operationsPerSecond = "operations_per_second"
      case weightBytesPerSecond = "weight_bytes_per_second"
    }
  }

  /// The parts that took time, in the order of a pass.
  public var rows: [Row]
  /// All of a step, with what lies outside of operations.
  public var secondsPerStep: Double

  /// - Parameters:
  ///   - profile: the operations of all steps.
  ///   - model: the model that ran.
  ///   - steps: steps that were profiled, at least 1.
  ///   - otherSeconds: time of these steps outside of the operations.
  public init(_ profile: OperationProfile, of model: DecoderConfiguration, steps: Int, otherSeconds: Double) {
    var sums: [ModelPart: (calls: Int, seconds: Double, operations: Double, bytes: Double)] = [
      .rest: (0, max(0, otherSeconds), 0, 0)
    ]
    for (operation, entry) in profile.entries {
      var sum = sums[ModelPart(operation, in: model)] ?? (0, 0, 0, 0)
      sum.calls += entry.calls
      sum.seconds += entry.seconds
      if case .multiply(let products) = operation {
        for product in products {
          sum.operations += 2 * Double(product.matrix.outputs * product.matrix.inputs) * Double(entry.rows)
          sum.bytes += Double(product.matrix.byteCount * entry.calls)
        }
      }
      sums[ModelPart(operation, in: model)] = sum
    }
    let total = sums.values.reduce(0) { $0 + $1.seconds }
    rows = ModelPart.allCases.compactMap { part in
      guard let sum = sums[part], sum.seconds > 0 else { return nil }
      return Row(
        part: part, callsPerStep: Double(sum.calls) / Double(steps), secondsPerStep: sum.seconds / Double(steps),
        share: sum.seconds / total, operationsPerSecond: sum.operations > 0 ? sum.operations / sum.seconds : nil,
        weightBytesPerSecond: sum.bytes > 0 ? sum.bytes / sum.seconds : nil)
    }
    secondsPerStep = total / Double(steps)
  }
}

extension StepProfile: Encodable {
  private enum CodingKeys: String, CodingKey {
    case rows = "operations"
    case secondsPerStep = "seconds_per_step"
  }
}
