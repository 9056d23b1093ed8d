// The file that a fetch writes to, beside the place where the finished file will stand.
//
// `model.gguf.part` holds a prefix of the file, is locked while a fetch runs, and becomes `model.gguf` by a
// rename after its size and sum have been checked and its bytes are on the disk. A kill at any moment leaves
// the part, which the next fetch continues, or the finished file, and nothing between.

import Crypto
import Foundation

/// A locked, growing file that becomes the finished one by ``commit(bytes:sha256:)``.
///
/// Owns the descriptor and, through it, an advisory lock (`flock`); both end with the value. An empty part is
/// removed then, so that a fetch that got nothing leaves nothing.
package struct PartFile: ~Copyable {
  /// Where the finished file will stand.
  package let destination: String
  /// The part itself.
  package let path: String
  /// The open file. A child process that inherits it shares the lock, so that no second fetch can start
  /// while an orphan still writes.
  package let descriptor: Int32

  private static let suffixes = [".part", ".part.etag", ".part.wheel"]
  private var validatorPath: String { path + ".etag" }
  /// A folder for whatever must be unpacked on the way.
  package var workFolder: String { path + ".wheel" }

  /// Whether a path's name is one that part files use for themselves.
  package static func isReserved(_ path: String) -> Bool {
    path.split(separator: "/").contains { component in suffixes.contains { component.hasSuffix($0) } }
  }

  /// Opens the part of `destination` and locks it, creating it and its folder where needed.
  ///
  /// - Throws: ``ModelStoreError/locked(path:)`` where another process holds it.
  package init(destination: String) throws(ModelStoreError) {
    let path = destination + ".part"
    self.destination = destination
    self.path = path
    let folder = (destination as NSString).deletingLastPathComponent
    do {
      try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    } catch {
      throw .fileSystem(operation: "create", path: folder, reason: systemReason(error))
    }
    while true {
      let opened = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
      guard opened >= 0 else { throw .lastError("open", path) }
      guard flock(opened, LOCK_EX | LOCK_NB) == 0 else {
        let code = errno
        close(opened)
        guard code == EWOULDBLOCK else { throw .systemError("lock", path, code) }
        throw .locked(path: path)
      }
      // Between open and lock the former holder may have renamed or removed the file: then the lock is on a
      // file that is no longer the part.
      if Self.sameFile(opened, path) {
        descriptor = opened
        return
      }
      close(opened)
    }
  }

  deinit {
    if Self.size(of: descriptor) == 0, Self.sameFile(descriptor, path) {
      unlink(path)
      unlink(path + ".etag")
    }
    close(descriptor)
  }

  /// Bytes in the part now.
  package var size: Int { Self.size(of: descriptor) }

  /// The `ETag` under which the part's bytes came, where one was given.
  package var validator: String? {
    FileManager.default.contents(atPath: validatorPath).flatMap { String(bytes: $0, encoding: .utf8) }
  }

  /// Remembers the `ETag` of the bytes to come. Where it cannot be written it is forgotten: a later fetch
  /// then starts afresh instead of going on blindly.
  package borrowing func setValidator(_ etag: String?) {
    unlink(validatorPath)
    if let etag { try? Data(etag.utf8).write(to: URL(fileURLWithPath: validatorPath), options: .atomic) }
  }

  /// Cuts the part down to its first `bytes` bytes and puts the write position at its end.
  package borrowing func truncate(to bytes: Int) throws(ModelStoreError) {
    if size > bytes, ftruncate(descriptor, off_t(bytes)) != 0 { throw .lastError("shorten", path) }
    if lseek(descriptor, 0, SEEK_END) < 0 { throw .lastError("seek in", path) }
  }

  /// Writes bytes at the end.
  ///
  /// - Throws: ``ModelStoreError/diskFull(path:kept:)`` where there is no room.
  package borrowing func append(_ bytes: UnsafeRawBufferPointer) throws(ModelStoreError) {
    var rest = bytes[...]
    while !rest.isEmpty {
      let slice = UnsafeRawBufferPointer(rebasing: rest)
      let written = write(descriptor, slice.baseAddress, slice.count)
      if written >= 0 {
        rest = rest.dropFirst(written)
      } else if errno == ENOSPC || errno == EDQUOT {
        throw .diskFull(path: path, kept: size)
      } else if errno != EINTR {
        throw .lastError("write", path)
      }
    }
  }

  /// Checks size and sum, brings the bytes to the disk and renames the part into place.
  ///
  /// - Parameters:
  ///   - bytes: the size that the file must have, where it is known
  ///   - sha256: the sum that it must have, where it is known, in lower-case hexadecimal
  /// - Throws: ``ModelStoreError/wrongSize(_:expected:found:place:)`` or
  ///   ``ModelStoreError/checksumMismatch(_:expected:found:place:)``, after which the part is empty.
  package borrowing func commit(bytes: Int?, sha256: String?) throws(ModelStoreError) {
    let name = (destination as NSString).lastPathComponent
    if let bytes, size != bytes {
      let found = size
      try discard()
      throw .wrongSize(name, expected: bytes, found: found, place: "in the download, which was removed")
    }
    if let sha256 {
      let found = try Self.sha256(of: descriptor, path: path)
      guard found == sha256 else {
        try discard()
        throw .checksumMismatch(
          name, expected: sha256, found: found, place: "in the download, which was removed")
      }
    }
    guard fsync(descriptor) == 0 else {
      if errno == ENOSPC || errno == EDQUOT { throw .diskFull(path: path, kept: size) }
      throw .lastError("flush", path)
    }
    guard rename(path, destination) == 0 else { throw .lastError("rename \(path) to", destination) }
    unlink(validatorPath)
    // The rename itself is on the disk only when the folder is.
    let folder = open((path as NSString).deletingLastPathComponent, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    if folder >= 0 {
      fsync(folder)
      close(folder)
    }
  }

  /// Throws away what has been downloaded.
  package borrowing func discard() throws(ModelStoreError) {
    unlink(validatorPath)
    try truncate(to: 0)
  }

  private static func size(of descriptor: Int32) -> Int {
    var info = stat()
    return fstat(descriptor, &info) == 0 ? Int(info.st_size) : 0
  }

  private static func sameFile(_ descriptor: Int32, _ path: String) -> Bool {
    var mine = stat()
    var named = stat()
    return fstat(descriptor, &mine) == 0 && stat(path, &named) == 0
      && mine.st_ino == named.st_ino && mine.st_dev == named.st_dev
  }
}

extension PartFile {
  /// The SHA-256 sum of a whole file, in lower-case hexadecimal.
  package static func sha256(ofFile path: String) throws(ModelStoreError) -> String {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw .lastError("open", path) }
    defer { close(descriptor) }
    return try sha256(of: descriptor, path: path)
  }

  private static func sha256(of descriptor: Int32, path: String) throws(ModelStoreError) -> String {
    let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 64)
    defer { chunk.deallocate() }
    var hash = SHA256()
    var offset = 0
    while true {
      let count = pread(descriptor, chunk.baseAddress, chunk.count, off_t(offset))
      if count < 0, errno == EINTR { continue }
      guard count >= 0 else { throw .lastError("read", path) }
      if count == 0 { break }
      hash.update(bufferPointer: UnsafeRawBufferPointer(rebasing: chunk[..<count]))
      offset += count
    }
    let digits = Array("0123456789abcdef".utf8)
    let text = hash.finalize().flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }
    return String(decoding: text, as: UTF8.self)
  }
}

/// Asks that the file system that holds, or will hold, `path` has room for `bytes` more.
func requireRoom(for bytes: Int, at path: String) throws(ModelStoreError) {
  var folder = (path as NSString).deletingLastPathComponent
  var info = statvfs()
  while statvfs(folder, &info) != 0 {
    guard errno == ENOENT, folder.count > 1 else { throw .lastError("read the free space of", folder) }
    folder = (folder as NSString).deletingLastPathComponent
  }
  let (product, overflow) = Int(info.f_bavail).multipliedReportingOverflow(by: Int(info.f_frsize))
  let available = overflow ? Int.max : product
  guard bytes <= available else {
    throw .insufficientDisk(path: folder, needed: bytes, available: available)
  }
}

extension ModelStoreError {
  /// The error of the system call that has just failed.
  static func lastError(_ operation: String, _ path: String) -> ModelStoreError {
    systemError(operation, path, errno)
  }

  static func systemError(_ operation: String, _ path: String, _ code: Int32) -> ModelStoreError {
    .fileSystem(operation: operation, path: path, reason: String(cString: strerror(code)))
  }
}

/// The reason inside one of Foundation's file errors, without the path that the message around it names.
func systemReason(_ error: any Error) -> String {
  let error = error as NSError
  if let cause = error.userInfo[NSUnderlyingErrorKey] as? NSError, cause.domain == NSPOSIXErrorDomain {
    return String(cString: strerror(Int32(cause.code)))
  }
  return oneLine(error.localizedDescription)
}
