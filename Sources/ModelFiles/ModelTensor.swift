// What every kind of model file offers: named tensors whose bytes stay where they are.

import KindredCompute

/// A tensor in a model file: its description, and a view of its bytes.
///
/// The bytes are usually a mapped file's and are read only when touched.
public struct ModelTensor: Sendable {
  /// The tensor's name in its file.
  public let name: String
  /// How its elements are encoded.
  public let type: TensorType
  /// Its dimensions, outermost first: `[rows, columns]` for a matrix. (GGUF stores them the other way round.)
  public let shape: [Int]

  private let owner: any Sendable
  private nonisolated(unsafe) let bytes: UnsafeRawBufferPointer

  /// Describes `bytes`, which stay valid as long as `owner` lives and hold exactly `shape` elements of `type`.
  public init(
    name: String, type: TensorType, shape: [Int], owner: any Sendable, bytes: UnsafeRawBufferPointer
  ) {
    precondition(type.byteCount(elements: shape.reduce(1, *)) == bytes.count, "tensor \(name): byte count")
    self.name = name
    self.type = type
    self.shape = shape
    self.owner = owner
    self.bytes = bytes
  }

  /// Elements in all.
  public var elementCount: Int { shape.reduce(1, *) }

  /// Bytes in the file.
  public var byteCount: Int { bytes.count }

  /// Calls `body` with the tensor's bytes, which are valid only during the call.
  public func withBytes<Result, Failure: Error>(
    _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    defer { withExtendedLifetime(owner) {} }
    return try body(bytes)
  }
}

/// A file, a folder or a generator that holds a model's tensors.
public protocol TensorContainer: Sendable {
  /// The names of all tensors, in the order of the file.
  var tensorNames: [String] { get }

  /// The tensor called `name`, or `nil` where there is none.
  func tensor(named name: String) -> ModelTensor?
}
