// A file mapped into memory for reading: model weights are used where the page cache holds them.

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// A regular file, mapped read-only until the last reference to it goes.
///
/// The mapping shows the file as it is, not as it was: if another process changes the file, the bytes change;
/// if another process truncates it, reading what was cut off ends this process with `SIGBUS`. Replace model
/// files by renaming a new file into their place, which leaves mappings of the old one intact.
public final class MappedFile: Sendable {
  /// The path by which the file was opened.
  public let path: String
  private nonisolated(unsafe) let bytes: UnsafeRawBufferPointer

  /// Maps the file at `path`, which must be a regular file and not empty.
  public init(path: String) throws(ModelFileError) {
    // Non-blocking, so that opening a named pipe fails below instead of waiting for a writer.
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else { throw .system(path) }
    defer { close(descriptor) }

    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw .system(path) }
    guard status.st_mode & S_IFMT == S_IFREG else {
      let found = status.st_mode & S_IFMT == S_IFDIR ? "a directory" : "a device, pipe or socket"
      throw ModelFileError(path: path, problem: "expected a regular file, found \(found)")
    }
    guard status.st_size > 0 else {
      throw ModelFileError(path: path, problem: "expected a model file, found an empty file")
    }
    let count = Int(status.st_size)
    let start = mmap(nil, count, PROT_READ, MAP_PRIVATE, descriptor, 0)
    guard let start, start != MAP_FAILED else { throw .system(path) }
    self.path = path
    self.bytes = UnsafeRawBufferPointer(start: start, count: count)
  }

  deinit {
    munmap(UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count)
  }

  /// Bytes in the file when it was opened.
  public var byteCount: Int { bytes.count }

  /// Calls `body` with the file's bytes, which are valid only during the call.
  public func withBytes<Result, Failure: Error>(
    _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    defer { withExtendedLifetime(self) {} }
    return try body(bytes)
  }

  /// Takes the pages of `range` out of this process's resident set; touching them brings them back.
  ///
  /// Pages that `range` shares with its neighbours go too: the mapping is read-only, so nothing can be lost.
  package func releasePages(_ range: Range<Int>) {
    advise(range, MADV_DONTNEED)
  }

  /// Reads the pages of `range` ahead, in one call instead of a fault per page.
  ///
  /// A hint: nothing happens where the kernel does not know it.
  package func prefetch(_ range: Range<Int>) {
    #if os(Linux)
      let populateRead: CInt = 22  // MADV_POPULATE_READ, since Linux 5.14; older C headers lack the name.
      advise(range, populateRead)
    #else
      advise(range, MADV_WILLNEED)
    #endif
  }

  private func advise(_ range: Range<Int>, _ advice: CInt) {
    precondition(range.lowerBound >= 0 && range.upperBound <= bytes.count, "range \(range) of \(path)")
    guard !range.isEmpty, let base = bytes.baseAddress else { return }
    let pageBytes = Int(getpagesize())
    let start = range.lowerBound / pageBytes * pageBytes
    // The result is ignored: advice that is refused changes speed, not meaning.
    madvise(UnsafeMutableRawPointer(mutating: base + start), range.upperBound - start, advice)
  }
}
