// The operations of a decoder pass, so that the pass is written once for every kind of processor.
//
// Nothing above this module may assume that a tensor's bytes are host memory. Operations run in the order in which
// they are called; `read` waits for those before it.

/// A processor that can run a decoder pass.
///
/// Row arguments are explicit because tensors are allocated once for the largest batch and reused.
///
/// Batch invariance: on one backend, a row's result never depends on the other rows of the call, so that prefill in
/// chunks of any size, decode, and batches of sequences agree bit for bit. Where a backend rounds otherwise when there
/// are many rows (the processor: from 16 rows on with matrix tiles, and from 64 rows on), this holds between two such
/// numbers, and across them within that rounding.
public protocol Backend: AnyObject, Sendable {
  /// Float32 values, `[rows, columns]`.
  associatedtype Tensor: AnyObject
  /// A weight matrix in the backend's own layout.
  associatedtype Matrix: AnyObject, Sendable
  /// Rows made ready to be multiplied by weights, for example quantised.
  associatedtype Activations: AnyObject
  /// Keys or values of one KV head at ``KVPageLayout/positions`` consecutive positions.
  associatedtype Page: AnyObject

  /// How the backend was set up, for reports: instruction set and threads.
  var configuration: BackendConfiguration { get }
  /// Rows from which an operation may be less precise, for speed: fewer get the ``ActivationPrecision`` that a product
  /// asks for.
  var manyRows: Int { get }

  // MARK: Memory

  /// Allocates a zeroed tensor, `[rows, columns]`.
  func makeTensor(rows: Int, columns: Int) throws(ComputeError) -> Tensor
  /// Allocates room for `rows` rows of `columns` activations.
  func makeActivations(rows: Int, columns: Int) throws(ComputeError) -> Activations
  /// Copies a matrix of a model file, `[rows, columns]` in `type`'s layout, into the backend's.
  func makeMatrix(
    type: TensorType, rows: Int, columns: Int, bytes: UnsafeRawBufferPointer
  ) throws(ComputeError) -> Matrix
  /// Allocates a zeroed page, or a block of as many `positions`; of a head that fills whole blocks of the type.
  func makePage(headDimension: Int, type: KVType, positions: Int) throws(ComputeError) -> Page
  /// Allocates a page, or a block, with what another one holds.
  func copyPage(_ page: Page) throws(ComputeError) -> Page
  /// Copies host values over the first rows of `tensor`.
  func write(_ values: [Float], to tensor: Tensor)
  /// Copies rows to the host, row after row.
  func read(_ tensor: Tensor, rows: Range<Int>) -> [Float]
  /// Copies the listed rows of `source` to `destination`, from row `start` on.
  func gather(_ rows: some Collection<Int>, of source: Tensor, into destination: Tensor, at start: Int)
  /// Bytes that a matrix occupies.
  func byteCount(of matrix: Matrix) -> Int

  // MARK: Rows

  /// RMSNorm of each row, made ready for products.
  func normalize(_ input: Tensor, rows: Int, weight: Tensor, epsilon: Float, into output: Activations)
  /// RMSNorm of each head of each row, in place (Qwen3's QK-norm). `weight` is `[1, headDimension]`.
  func normalizeHeads(_ tensor: Tensor, rows: Int, weight: Tensor, epsilon: Float)
  /// Makes rows ready for products as they are.
  func prepare(_ input: Tensor, rows: Int, into output: Activations)
  /// Products of the same rows with several matrices.
  func multiply(_ input: Activations, rows: Int, _ products: [Product<Self>])
  /// silu(input · gateᵀ) · (input · upᵀ), made ready for the product `next`. Whether the outputs of `gate` and `up` are
  /// written is up to the backend.
  func gatedProduct(
    _ input: Activations, rows: Int, gate: Product<Self>, up: Product<Self>, into output: Activations,
    for next: Product<Self>)
  /// Rotary position embedding of every head of each row, in place.
  func rotate(_ tensor: Tensor, heads: Int, by angles: RotaryAngles)

  // MARK: Attention

  /// Writes each row's keys or values, `[rows, kvHeads · headDimension]`, into the pages, or the blocks, of its position.
  func store(_ tensor: Tensor, as part: KVPart, in segments: [AttentionSegment<Page>], type: KVType)
  /// Causal attention of each row over the keys and values at and before its position, for the listed KV heads.
  func attend(_ request: AttentionRequest<Self>, segments: [AttentionSegment<Page>])
  /// The post-softmax rows of one lent head, as tiles (see ``AttentionTiles``).
  func probabilities(of head: LentHead<Self>, segments: [AttentionSegment<Page>]) throws(ComputeError) -> Tensor
  /// Attention whose weights are lent by another pass: for each loan, lent rows times this model's values. For a KV head
  /// with a near window that holds at far positions alone; with `m` the sum of a row's far weights, its own softmax over
  /// near positions counts `max(0, 1 − m)`.
  func attend(_ request: BorrowRequest<Self>, segments: [AttentionSegment<Page>])
}

extension Backend {
  /// Allocates a page of ``KVPageLayout/positions``.
  public func makePage(headDimension: Int, type: KVType) throws(ComputeError) -> Page {
    try makePage(headDimension: headDimension, type: type, positions: KVPageLayout.positions)
  }
}

/// What a report says about a backend.
public struct BackendConfiguration: Sendable, Hashable, Codable {
  /// The kernels in use: `avx512`.
  public var instructionSet: String
  /// Threads that compute.
  public var threads: Int
}

/// How precisely activations must be given where they meet quantised weights.
public enum ActivationPrecision: Sendable {
  /// 8 bits with a scale for each 32 elements: an error of about 0.5% of a row.
  case int8
  /// About 16 bits.
  case int16
}

/// One matrix product: `output (+)= input · matrixᵀ + bias`.
public struct Product<B: Backend> {
  let matrix: B.Matrix
  let bias: B.Tensor?
  let output: B.Tensor
  let accumulates: Bool
  let precision: ActivationPrecision
  let roundsWeights: Bool

  /// - Parameters:
  ///   - matrix: weights, `[outputs, inputs]`.
  ///   - bias: `[1, outputs]`.
  ///   - output: `[rows, outputs]`.
  ///   - accumulates: whether the result is added to `output`, as a residual connection does.
  ///   - precision: how precisely quantised weights must be given their inputs.
  ///   - roundsWeights: whether many rows may meet quantised weights rounded once more, to 8 bits with a scale for each
  ///     256 elements of a row, where that is faster.
  public init(
    _ matrix: B.Matrix, bias: B.Tensor? = nil, into output: B.Tensor, accumulates: Bool = false,
    precision: ActivationPrecision = .int16, roundsWeights: Bool = false
  ) {
    self.matrix = matrix
    self.bias = bias
    self.output = output
    self.accumulates = accumulates
    self.precision = precision
    self.roundsWeights = roundsWeights
  }
}
