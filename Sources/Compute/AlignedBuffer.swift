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
  private let allocatedBytes: Int

  /// Bytes from which memory comes from the kernel itself, zeroed page by page as it is touched: what nobody touches is
  /// never resident, and takes no time. `calloc` writes all zeros of memory that it has given before.
  private static let mappedBytes = 1 << 20

  /// Allocates `byteCount` zeroed bytes.
  ///
  /// - Throws: `ComputeError.outOfMemory` where the system has none left.
  public init(byteCount: Int) throws(ComputeError) {
    let (size, overflow) = byteCount.addingReportingOverflow(64)
    guard byteCount >= 0, !overflow, let allocation = Self.zeroed(size) else {
      throw .outOfMemory(byteCount: byteCount)
    }
    self.allocation = allocation
    allocatedBytes = size
    pointer = allocation.alignedUp(toMultipleOf: 64)
    self.byteCount = byteCount
  }

  private static func zeroed(_ size: Int) -> UnsafeMutableRawPointer? {
    guard size >= mappedBytes else { return calloc(1, size) }
    let pages = mmap(nil, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0)
    return pages == MAP_FAILED ? nil : pages
  }

  deinit {
    if allocatedBytes < Self.mappedBytes { free(allocation) } else { munmap(allocation, allocatedBytes) }
  }
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
