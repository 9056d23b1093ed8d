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

  /// Allocates `byteCount` zeroed bytes.
  ///
  /// - Throws: `ComputeError.outOfMemory` where the system has none left.
  public init(byteCount: Int) throws(ComputeError) {
    // Large blocks come zeroed from the kernel page by page, so memory that is never touched is never resident.
    let rounded = (max(byteCount, 1) + 63) & ~63
    var memory: UnsafeMutableRawPointer?
    guard byteCount >= 0, posix_memalign(&memory, 64, rounded) == 0, let memory else {
      throw .outOfMemory(byteCount: byteCount)
    }
    memset(memory, 0, rounded)
    pointer = memory
    self.byteCount = byteCount
  }

  deinit { free(pointer) }
}

/// What can go wrong below the model.
public enum ComputeError: Error, Sendable, Hashable, CustomStringConvertible {
  /// The system refused an allocation.
  case outOfMemory(byteCount: Int)
  /// `KINDRED_ISA` names an instruction set that is unknown or that this machine lacks.
  case instructionSet(requested: String, available: [String])
  /// A weight matrix whose columns do not fill whole blocks of its type.
  case unsupportedShape(type: TensorType, rows: Int, columns: Int)

  public var description: String {
    switch self {
    case .outOfMemory(let byteCount):
      "out of memory: \(byteCount) bytes could not be allocated"
    case .instructionSet(let requested, let available):
      "KINDRED_ISA: expected one of \(available.joined(separator: ", ")) on this machine, found \"\(requested)\""
    case .unsupportedShape(let type, let rows, let columns):
      "\(type.name) matrix of \(rows) × \(columns): expected columns in multiples of \(type.blockElements)"
    }
  }
}
