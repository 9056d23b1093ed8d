// Data files as bytes and lines. Any may be gzipped, whatever its name.

import CZlib
import Foundation

/// The bytes of a data file, unpacked where it is gzipped.
struct DataFile {
  /// As it was named.
  let path: String
  let bytes: [UInt8]

  /// Bytes of the largest file, unpacked.
  static let sizeLimit = 1 << 30
  /// Bytes of the longest line.
  static let lineLimit = 1 << 26

  /// Reads the regular file at `path`; a byte order mark is dropped.
  init(path: String, sizeLimit: Int = DataFile.sizeLimit) throws(DataError) {
    self.path = path
    guard case .file = try DataPath(path) else {
      throw .unreadable(path: path, problem: "expected a file, found a folder")
    }
    guard let file = gzopen(path, "rb") else {
      throw .unreadable(path: path, problem: String(cString: strerror(errno)))
    }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 1 << 18)
    var count: CInt
    repeat {
      count = gzread(file, &chunk, UInt32(chunk.count))
      if count > 0 { bytes.append(contentsOf: chunk[..<Int(count)]) }
    } while count > 0 && bytes.count <= sizeLimit
    // A file that is cut off is noticed only at the end.
    let state = gzclose_r(file)
    guard bytes.count <= sizeLimit else {
      throw .unreadable(path: path, problem: "expected at most \(sizeLimit) bytes, found more")
    }
    guard count == 0, state == Z_OK else {
      throw .unreadable(path: path, problem: "expected gzipped data, found some that is damaged or cut off")
    }
    if bytes.starts(with: [0xEF, 0xBB, 0xBF]) { bytes.removeFirst(3) }
    self.bytes = bytes
  }

  /// The file's name without folders and what follows the first dot.
  var stem: String {
    let name = path.split(separator: "/").last ?? ""
    return String(name.prefix { $0 != "." })
  }

  /// Calls `body` with the number, from 1, and the bytes of each line that is not blank, without its line break.
  func forEachLine(_ body: (Int, UnsafeRawBufferPointer) throws -> Void) rethrows {
    try bytes.withUnsafeBytes { all in
      var start = 0
      var number = 0
      while start < all.count {
        let end = all[start...].firstIndex(of: UInt8(ascii: "\n")) ?? all.count
        var line = all[start..<end]
        if line.last == UInt8(ascii: "\r") { line.removeLast() }
        start = end + 1
        number += 1
        if line.allSatisfy({ $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\t") }) { continue }
        try body(number, UnsafeRawBufferPointer(rebasing: line))
      }
    }
  }

  /// The text of a line or of a field of it.
  static func text(_ bytes: some Sequence<UInt8>) throws(ItemProblem) -> String {
    guard let text = String(validating: bytes, as: UTF8.self) else { throw ItemProblem("expected UTF-8") }
    return text
  }
}

/// What a user names as data.
enum DataPath {
  case file
  case folder

  init(_ path: String) throws(DataError) {
    var status = stat()
    guard stat(path, &status) == 0 else {
      throw .unreadable(path: path, problem: String(cString: strerror(errno)))
    }
    switch status.st_mode & S_IFMT {
    case S_IFREG: self = .file
    case S_IFDIR: self = .folder
    default: throw .unreadable(path: path, problem: "expected a file or folder, found a device, pipe or socket")
    }
  }

  /// The files of a folder whose names end so, sorted by name; there is at least one.
  static func files(in folder: String, endingIn suffix: String) throws(DataError) -> [String] {
    guard case .folder = try DataPath(folder) else {
      throw .unreadable(path: folder, problem: "expected a folder, found a file")
    }
    let names: [String]
    do { names = try FileManager.default.contentsOfDirectory(atPath: folder) } catch {
      throw .unreadable(path: folder, problem: "expected a folder that can be read")
    }
    let files = names.filter { $0.hasSuffix(suffix) && !$0.hasPrefix(".") }.sorted().map { "\(folder)/\($0)" }
    if files.isEmpty {
      throw .unreadable(path: folder, problem: "expected files named *\(suffix), found none")
    }
    return files
  }
}
