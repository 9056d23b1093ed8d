// The state of a run: scratch rows of one pass, and the KV cache that outlives it.

import KindredCompute
import KindredKVStore

/// What one user of a model needs besides its weights. Not shared between threads.
public final class RunState<B: Backend> {
  /// The KV cache of the sequences that this state runs.
  public let store: KVStore<B>
  /// Rows that one pass may have.
  public let rowCapacity: Int
  /// Rows whose logits are computed together: the output matrix has many columns.
  public static var logitRows: Int { 32 }

  /// Of the layers in the last pass, and of its logits.
  var precision = ActivationPrecision.int16, logitPrecision = ActivationPrecision.int16
  /// What the next layer reads, and after the last one the model's output, [rows, E].
  package let hidden: B.Tensor
  let query: B.Tensor  // [rows, H·D]
  let key: B.Tensor  // [rows, G·D]
  /// The newest layer's values, [rows, G·D].
  package let value: B.Tensor
  let attended: B.Tensor  // [rows, H·D]
  let logSumExp: B.Tensor  // [rows, H]
  let gate: B.Tensor  // [rows, F]
  let up: B.Tensor  // [rows, F]
  let normalized: B.Activations  // [rows, E]
  let attendedInput: B.Activations  // [rows, H·D]
  let gatedInput: B.Activations  // [rows, F]
  let selected: B.Tensor  // [logitRows, E]
  let logits: B.Tensor  // [logitRows, vocabulary]

  /// - Parameters:
  ///   - configuration: the model's.
  ///   - backend: where the state is kept.
  ///   - rowCapacity: rows of the largest pass; scratch memory grows with it.
  ///   - kvType: the type of stored keys and values.
  /// - Throws: `ComputeError` where memory is lacking or heads do not fill whole blocks of `kvType`.
  public init(
    _ configuration: DecoderConfiguration, backend: B, rowCapacity: Int = 512, kvType: KVType = .f16
  ) throws(ComputeError) {
    let shape = configuration.attention
    try kvType.check(headDimension: shape.headDimension)
    self.rowCapacity = rowCapacity
    let size = configuration.hiddenSize
    let feedForward = configuration.feedForwardSize
    let queries = shape.queryHeads * shape.headDimension
    let keys = shape.kvHeads * shape.headDimension
    store = KVStore(backend: backend, layerCount: configuration.layerCount, shape: shape, type: kvType)
    hidden = try backend.makeTensor(rows: rowCapacity, columns: size)
    query = try backend.makeTensor(rows: rowCapacity, columns: queries)
    key = try backend.makeTensor(rows: rowCapacity, columns: keys)
    value = try backend.makeTensor(rows: rowCapacity, columns: keys)
    attended = try backend.makeTensor(rows: rowCapacity, columns: queries)
    logSumExp = try backend.makeTensor(rows: rowCapacity, columns: shape.queryHeads)
    gate = try backend.makeTensor(rows: rowCapacity, columns: feedForward)
    up = try backend.makeTensor(rows: rowCapacity, columns: feedForward)
    normalized = try backend.makeActivations(rows: rowCapacity, columns: size)
    attendedInput = try backend.makeActivations(rows: rowCapacity, columns: queries)
    gatedInput = try backend.makeActivations(rows: rowCapacity, columns: feedForward)
    selected = try backend.makeTensor(rows: Self.logitRows, columns: size)
    logits = try backend.makeTensor(rows: Self.logitRows, columns: configuration.vocabularySize)
  }
}

/// The rows of one pass: tokens that continue one or several sequences.
public struct Batch: Sendable {
  /// Token ids, row by row.
  public private(set) var tokens: [Int32] = []
  /// Which rows continue which sequence, from which position.
  public private(set) var runs: [SequenceRows] = []
  /// Whether the rows are some of many that are read one after the other and need not be more precise than
  /// `Backend.manyRows` rows of one pass.
  public let isPartOfMany: Bool
  /// Whether the hidden state after the last layer is wanted of any row. Of prompts it mostly is not: a model reads them
  /// for the keys and values that it stores.
  public var wantsOutput = true

  public init(isPartOfMany: Bool = false) { self.isPartOfMany = isPartOfMany }

  /// Appends tokens that continue `sequence` from `firstPosition` on.
  public mutating func append(_ newTokens: some Collection<Int32>, to sequence: Int, from firstPosition: Int) {
    runs.append(
      SequenceRows(
        sequence: sequence, rows: tokens.count..<tokens.count + newTokens.count, firstPosition: firstPosition))
    tokens += newTokens
  }

  /// Sequences from which decoding them together takes the time of arithmetic instead of that of reading weights.
  static let manySequences = 16

  /// How precisely the products of layers are given their inputs.
  var precision: ActivationPrecision { isPartOfMany ? .int8 : logitPrecision }

  /// How precisely the output matrix is: many sequences that are decoded together, a token each, are worth more tokens in
  /// the same time.
  var logitPrecision: ActivationPrecision {
    runs.count >= Self.manySequences && runs.allSatisfy { $0.rows.count == 1 } ? .int8 : .int16
  }

  /// The position of each row.
  var positions: [Int] {
    runs.flatMap { run in run.rows.indices.map { run.firstPosition + $0 - run.rows.lowerBound } }
  }
}
