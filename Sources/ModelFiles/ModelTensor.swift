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
  ///
  /// The bytes need not be aligned to the element type: safetensors files promise no alignment.
  public func withBytes<Result, Failure: Error>(
    _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    defer { withExtendedLifetime(owner) {} }
    return try body(bytes)
  }

  /// Takes the tensor's pages out of this process's resident set, once its contents have been copied.
  ///
  /// Touching the tensor again reads them again. Does nothing where the bytes are not a mapped file's.
  public func releasePages() {
    withFileRange { file, range in file.releasePages(range) }
  }

  /// Reads the tensor's pages ahead. Does nothing where the bytes are not a mapped file's.
  public func prefetch() {
    withFileRange { file, range in file.prefetch(range) }
  }

  private func withFileRange(_ body: (MappedFile, Range<Int>) -> Void) {
    guard let file = owner as? MappedFile else { return }
    file.withBytes { whole in
      guard let base = whole.baseAddress, let start = bytes.baseAddress else { return }
      let offset = start - base
      body(file, offset..<offset + bytes.count)
    }
  }
}

/// A file, a folder or a generator that holds a model's tensors.
public protocol TensorContainer: Sendable {
  /// The names of all tensors, in the order of the file.
  var tensorNames: [String] { get }

  /// The tensor called `name`, or `nil` where there is none.
  ///
  /// Throws where the tensor's type is one that this package does not read.
  func tensor(named name: String) throws(ModelFileError) -> ModelTensor?
}
