// What a `ProfilingBackend` notes: calls and time of each operation, products apart by the matrices in them.

/// What a profile says of a weight matrix.
public struct MatrixShape: Sendable, Hashable {
  /// The type in which its elements are stored.
  public var type: TensorType
  /// Rows of the matrix.
  public var outputs: Int
  /// Columns of the matrix.
  public var inputs: Int
  /// Bytes that the matrix occupies.
  public var byteCount: Int

  public init(type: TensorType, outputs: Int, inputs: Int, byteCount: Int) {
    self.type = type
    self.outputs = outputs
    self.inputs = inputs
    self.byteCount = byteCount
  }
}

/// One product of a `multiply`, as a profile tells it from others.
public struct ProfiledProduct: Sendable, Hashable {
  /// The weights.
  public var matrix: MatrixShape
  /// Whether the result is added to what is there.
  public var accumulates: Bool

  public init(matrix: MatrixShape, accumulates: Bool = false) {
    self.matrix = matrix
    self.accumulates = accumulates
  }
}

/// An operation of ``Backend``, as a profile tells it from others.
public enum ProfiledOperation: Sendable, Hashable {
  case allocate, pack, copy
  case normalize, normalizeHeads, prepare, rotate
  case multiply([ProfiledProduct])
  case storeKeys, storeValues, attend, probabilities, borrow
}

/// Calls and time of each operation of a run.
public struct OperationProfile: Sendable {
  /// What is noted of one operation.
  public struct Entry: Sendable, Hashable {
    /// How often the operation was asked for.
    public var calls = 0
    /// Wall-clock time.
    public var seconds = 0.0
    /// Rows of inputs, over all calls; 0 for what is no product.
    public var rows = 0
  }

  /// By operation.
  public private(set) var entries: [ProfiledOperation: Entry] = [:]

  public init() {}

  /// Notes a call.
  public mutating func add(_ operation: ProfiledOperation, rows: Int = 0, seconds: Double) {
    let call = Entry(calls: 1, seconds: seconds, rows: rows)
    add(call, to: operation)
  }

  /// Adds what another profile has noted.
  public mutating func add(_ other: OperationProfile) {
    for (operation, entry) in other.entries { add(entry, to: operation) }
  }

  private mutating func add(_ entry: Entry, to operation: ProfiledOperation) {
    entries[operation, default: Entry()].calls += entry.calls
    entries[operation, default: Entry()].seconds += entry.seconds
    entries[operation, default: Entry()].rows += entry.rows
  }

  /// Time of all operations.
  public var seconds: Double { entries.values.reduce(0) { $0 + $1.seconds } }
}
