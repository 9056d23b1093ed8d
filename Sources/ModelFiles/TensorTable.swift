// The table of tensors that a file's header describes, checked against the file before any is handed out.

import KindredCompute

/// A tensor as a file's header describes it; its type may be one that this package does not read.
public struct StoredTensor: Sendable, Equatable {
  /// The tensor's name in its file.
  public let name: String
  /// How its elements are encoded, or `nil` where this package does not read the encoding.
  public let type: TensorType?
  /// The encoding's name, as the format's users write it: `Q4_K`, `BF16`, `I64`.
  public let typeName: String
  /// Its dimensions, outermost first.
  public let shape: [Int]
  /// Where its bytes lie in the file.
  public internal(set) var extent: Range<Int>
}

/// The tensors of one mapped file, in file order and by name.
struct TensorTable: Sendable {
  let file: MappedFile
  let tensors: [StoredTensor]
  private let positions: [String: Int]

  /// Takes `tensors`, whose extents lie inside `file`; two of one name are an error.
  init(file: MappedFile, tensors: [StoredTensor]) throws(ModelFileError) {
    var positions: [String: Int] = [:]
    positions.reserveCapacity(tensors.count)
    for (position, tensor) in tensors.enumerated()
    where positions.updateValue(position, forKey: tensor.name) != nil {
      throw ModelFileError(
        path: file.path, field: "tensor \(tensor.name.quoted())",
        problem: "expected one, found two of this name")
    }
    self.file = file
    self.tensors = tensors
    self.positions = positions
  }

  /// A view of the tensor called `name`, or `nil` where there is none; throws where its type is not read.
  func tensor(named name: String) throws(ModelFileError) -> ModelTensor? {
    guard let position = positions[name] else { return nil }
    let tensor = tensors[position]
    guard let type = tensor.type else {
      throw ModelFileError(
        path: file.path, field: "tensor \(name.quoted())",
        problem: "expected a type among \(Self.readTypeNames), found \(tensor.typeName)")
    }
    return file.withBytes { bytes in
      ModelTensor(
        name: tensor.name, type: type, shape: tensor.shape, owner: file,
        bytes: UnsafeRawBufferPointer(rebasing: bytes[tensor.extent]))
    }
  }

  static let readTypeNames = TensorType.allCases.map(\.name).joined(separator: ", ")
}

/// The product of `shape`, or `nil` where a dimension is negative or the product overflows.
///
/// Empty dimensions count as one while looking for overflow, so that every partial product of `shape` fits too.
func elementCount(of shape: [Int]) -> Int? {
  var product = 1
  for dimension in shape {
    let (next, overflow) = product.multipliedReportingOverflow(by: max(1, dimension))
    guard dimension >= 0, !overflow else { return nil }
    product = next
  }
  return shape.contains(0) ? 0 : product
}
