// A backend that times every operation of another one, so that backends themselves need not: a run that asks for no
// profile pays nothing for it.
//
// Operations are timed from outside, call by call, which is right for backends whose operations return when they are
// done. The results are the other backend's, bit for bit (`ProfilingBackendTests`).

import Synchronization

/// Forwards every operation to another backend and notes how long it took.
///
/// Tensors, activations and pages are the other backend's own, so two of these over one backend work on the same
/// values and note what each of two models does.
public final class ProfilingBackend<Base: Backend>: Backend {
  public typealias Tensor = Base.Tensor
  public typealias Activations = Base.Activations
  public typealias Page = Base.Page

  /// The other backend's matrix, and what a profile says of it.
  public final class Matrix: Sendable {
    let base: Base.Matrix
    let shape: MatrixShape

    init(_ base: Base.Matrix, shape: MatrixShape) {
      self.base = base
      self.shape = shape
    }
  }

  private let base: Base
  private let profile = Mutex(OperationProfile())

  public init(_ base: Base) { self.base = base }

  /// What was noted since the last call.
  public func takeProfile() -> OperationProfile {
    profile.withLock { profile in
      defer { profile = OperationProfile() }
      return profile
    }
  }

  private func timed<Result, Failure: Error>(
    _ operation: ProfiledOperation, rows: Int = 0, _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let start = ContinuousClock.now
    defer {
      let seconds = start.duration(to: .now) / .seconds(1)
      profile.withLock { $0.add(operation, rows: rows, seconds: seconds) }
    }
    return try body()
  }

  public var configuration: BackendConfiguration { base.configuration }
  public var manyRows: Int { base.manyRows }

  // MARK: Memory

  public func makeTensor(rows: Int, columns: Int) throws(ComputeError) -> Tensor {
    try timed(.allocate) { () throws(ComputeError) in try base.makeTensor(rows: rows, columns: columns) }
  }

  public func makeActivations(rows: Int, columns: Int) throws(ComputeError) -> Activations {
    try timed(.allocate) { () throws(ComputeError) in try base.makeActivations(rows: rows, columns: columns) }
  }

  public func makeMatrix(
    type: TensorType, rows: Int, columns: Int, bytes: UnsafeRawBufferPointer
  ) throws(ComputeError) -> Matrix {
    let matrix = try timed(.pack) { () throws(ComputeError) in
      try base.makeMatrix(type: type, rows: rows, columns: columns, bytes: bytes)
    }
    return Matrix(
      matrix, shape: MatrixShape(type: type, outputs: rows, inputs: columns, byteCount: base.byteCount(of: matrix)))
  }

  public func makePage(headDimension: Int, type: KVType, positions: Int) throws(ComputeError) -> Page {
    try timed(.allocate) { () throws(ComputeError) in
      try base.makePage(headDimension: headDimension, type: type, positions: positions)
    }
  }

  public func copyPage(_ page: Page) throws(ComputeError) -> Page {
    try timed(.copy) { () throws(ComputeError) in try base.copyPage(page) }
  }

  public func write(_ values: [Float], to tensor: Tensor) {
    timed(.copy) { base.write(values, to: tensor) }
  }

  public func read(_ tensor: Tensor, rows: Range<Int>) -> [Float] {
    timed(.copy) { base.read(tensor, rows: rows) }
  }

  public func gather(_ rows: some Collection<Int>, of source: Tensor, into destination: Tensor, at start: Int) {
    timed(.copy) { base.gather(rows, of: source, into: destination, at: start) }
  }

  public func byteCount(of matrix: Matrix) -> Int { matrix.shape.byteCount }

  // MARK: Rows

  public func normalize(_ input: Tensor, rows: Int, weight: Tensor, epsilon: Float, into output: Activations) {
    timed(.normalize) { base.normalize(input, rows: rows, weight: weight, epsilon: epsilon, into: output) }
  }

  public func normalizeHeads(_ tensor: Tensor, rows: Int, weight: Tensor, epsilon: Float) {
    timed(.normalizeHeads) { base.normalizeHeads(tensor, rows: rows, weight: weight, epsilon: epsilon) }
  }

  public func prepare(_ input: Tensor, rows: Int, into output: Activations) {
    timed(.prepare) { base.prepare(input, rows: rows, into: output) }
  }

  public func multiply(_ input: Activations, rows: Int, _ products: [Product<ProfilingBackend>]) {
    let noted = products.map(Self.noted)
    let forwarded = products.map(Self.forwarded)
    timed(.multiply(noted), rows: rows) { base.multiply(input, rows: rows, forwarded) }
  }

  public func gatedProduct(
    _ input: Activations, rows: Int, gate: Product<ProfilingBackend>, up: Product<ProfilingBackend>,
    into output: Activations, for next: Product<ProfilingBackend>
  ) {
    timed(.multiply([Self.noted(gate), Self.noted(up)]), rows: rows) {
      base.gatedProduct(
        input, rows: rows, gate: Self.forwarded(gate), up: Self.forwarded(up), into: output,
        for: Self.forwarded(next))
    }
  }

  private static func noted(_ product: Product<ProfilingBackend>) -> ProfiledProduct {
    ProfiledProduct(matrix: product.matrix.shape, accumulates: product.accumulates)
  }

  private static func forwarded(_ product: Product<ProfilingBackend>) -> Product<Base> {
    Product(
      product.matrix.base, bias: product.bias, into: product.output, accumulates: product.accumulates,
      precision: product.precision, roundsWeights: product.roundsWeights)
  }

  public func rotate(_ tensor: Tensor, heads: Int, by angles: RotaryAngles) {
    timed(.rotate) { base.rotate(tensor, heads: heads, by: angles) }
  }

  // MARK: Attention

  public func store(_ tensor: Tensor, as part: KVPart, in segments: [AttentionSegment<Page>], type: KVType) {
    timed(part == .keys ? .storeKeys : .storeValues) { base.store(tensor, as: part, in: segments, type: type) }
  }

  public func attend(_ request: AttentionRequest<ProfilingBackend>, segments: [AttentionSegment<Page>]) {
    let forwarded = AttentionRequest<Base>(
      query: request.query, shape: request.shape, type: request.type, groups: request.groups, output: request.output,
      logSumExp: request.logSumExp, kept: request.kept)
    timed(.attend) { base.attend(forwarded, segments: segments) }
  }

  public func probabilities(
    of head: LentHead<ProfilingBackend>, segments: [AttentionSegment<Page>]
  ) throws(ComputeError) -> Tensor {
    try timed(.probabilities) { () throws(ComputeError) in
      try base.probabilities(of: Self.forwarded(head), segments: segments)
    }
  }

  public func attend(_ request: BorrowRequest<ProfilingBackend>, segments: [AttentionSegment<Page>]) {
    let forwarded = BorrowRequest<Base>(
      loans: request.loans.map { Loan(lender: Self.forwarded($0.lender), borrowers: $0.borrowers) },
      groups: request.groups, shape: request.shape, type: request.type, output: request.output, query: request.query,
      products: request.products)
    timed(.borrow) { base.attend(forwarded, segments: segments) }
  }

  private static func forwarded(_ head: LentHead<ProfilingBackend>) -> LentHead<Base> {
    var forwarded = LentHead<Base>(
      query: head.query, logSumExp: head.logSumExp, shape: head.shape, type: head.type, head: head.head,
      keys: head.keys)
    forwarded.tiles = head.tiles
    return forwarded
  }
}
