// Memory that vector kernels can use at full speed.

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Zeroed bytes aligned to 64, a cache line and the widest vector register; Swift arrays are aligned to 32 only,
/// at which 512-bit loads run at half speed.
public struct AlignedBuffer: ~Copyable, @unchecked Sendable {
  /// The first byte.
  public let pointer: UnsafeMutableRawPointer
  /// Bytes in all.
  public let byteCount: Int
  private let allocation: UnsafeMutableRawPointer

  /// Allocates `byteCount` zeroed bytes.
  ///
  /// - Throws: `ComputeError.outOfMemory` where the system has none left.
  public init(byteCount: Int) throws(ComputeError) {
    // `calloc` takes large blocks from the kernel, zeroed page by page: what is never touched is never resident.
    let (size, overflow) = byteCount.addingReportingOverflow(64)
    guard byteCount >= 0, !overflow, let allocation = calloc(1, size) else { throw .outOfMemory(byteCount: byteCount) }
    self.allocation = allocation
    pointer = allocation.alignedUp(toMultipleOf: 64)
    self.byteCount = byteCount
  }

  deinit { free(allocation) }
}

/// What can go wrong below the model.
public enum ComputeError: Error, Sendable, Hashable, CustomStringConvertible {
  /// The system refused an allocation.
  case outOfMemory(byteCount: Int)
  /// `KINDRED_ISA` names an instruction set that is unknown or that this machine lacks.
  case instructionSet(requested: String, available: [String])
  /// A weight matrix whose columns do not fill whole blocks of its type.
  case unsupportedShape(type: TensorType, rows: Int, columns: Int)
  /// A head that does not fill whole blocks of the type in which keys and values are to be stored.
  case headDimension(type: KVType, found: Int)

  public var description: String {
    switch self {
    case .outOfMemory(let byteCount):
      "out of memory: \(byteCount) bytes could not be allocated"
    case .instructionSet(let requested, let available):
      "KINDRED_ISA: expected one of \(available.joined(separator: ", ")) on this machine, found \"\(requested)\""
    case .unsupportedShape(let type, let rows, let columns):
      "\(type.name) matrix of \(rows) × \(columns): expected columns in multiples of \(type.blockElements)"
    case .headDimension(let type, let found):
      "KV type \(type.rawValue): expected a head dimension in multiples of \(type.blockElements), found \(found)"
    }
  }
}
