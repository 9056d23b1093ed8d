// What the tests of model files share: fixtures, temporary files, reading everything that a file offers.

import Foundation
import KindredModelFiles
import Testing

/// The path of a file in `Fixtures/`.
func fixture(_ name: String) throws -> String {
  let folder = try #require(Bundle.module.resourceURL)
  return folder.appendingPathComponent("Fixtures").appendingPathComponent(name).path
}

func bytes(of path: String) throws -> [UInt8] { [UInt8](try Data(contentsOf: URL(fileURLWithPath: path))) }

func decode<T: Decodable>(_: T.Type = T.self, _ name: String) throws -> T {
  try JSONDecoder().decode(T.self, from: Data(contentsOf: URL(fileURLWithPath: fixture(name))))
}

/// A folder that goes when the last reference to it goes.
final class TemporaryFolder: Sendable {
  let path: String

  init() throws {
    path = NSTemporaryDirectory() + "kindred-model-files-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  /// Writes `contents` under `name` and returns its path.
  ///
  /// The file is a new one each time, since the one before may still be mapped. Foundation's writers wait for
  /// the disk, which makes thousands of files slow.
  @discardableResult func write(_ contents: some Sequence<UInt8>, as name: String) throws -> String {
    let file = "\(path)/\(name)"
    unlink(file)
    let stream = try #require(fopen(file, "w"))
    defer { fclose(stream) }
    let bytes = Array(contents)
    try #require(fwrite(bytes, 1, bytes.count, stream) == bytes.count)
    return file
  }
}

/// The 64-bit FNV-1a hash in hexadecimal, as the fixture script computes it.
func fnv1a(_ bytes: some Sequence<UInt8>) -> String {
  let hash = bytes.reduce(0xCBF2_9CE4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
  let digits = String(hash, radix: 16)
  return String(repeating: "0", count: 16 - digits.count) + digits
}

/// Reads every byte of every tensor in `container` whose type is read.
func touchTensors(of container: some TensorContainer) {
  for name in container.tensorNames {
    guard let tensor = try? container.tensor(named: name) else { continue }
    let sum = tensor.withBytes { $0.reduce(0 as Int) { $0 &+ Int($1) } }
    #expect(sum >= 0 && tensor.elementCount >= 0)
  }
}

/// Reads every metadata value in every way.
func touchMetadata(of file: GGUFFile) {
  for (key, value) in file.metadata {
    #expect(!"\(value) \(key)".isEmpty)
    _ = (value.integer, value.double, value.bool, value.string, value.integers)
    _ = (try? file.strings(key).reduce(0) { $0 + $1.count }, try? file.floats(key))
  }
}

/// Whether `body` ends in a `ModelFileError`, whose description must be one line.
func isRefused(_ body: () throws(ModelFileError) -> Void) -> Bool {
  do {
    try body()
    return false
  } catch {
    let isOneLine = !error.description.contains(where: \.isNewline)
    #expect(isOneLine)
    return true
  }
}

/// Writes GGUF files by hand, right or wrong.
struct GGUFBuilder {
  var version: UInt32 = 3
  /// What the header claims; `nil` for the truth.
  var tensorCount: UInt64?
  var pairCount: UInt64?
  var pairs: [[UInt8]] = []
  var tensors: [[UInt8]] = []
  /// Bytes after the header and its padding to 32.
  var data: [UInt8] = []

  static func little<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian) { Array($0) }
  }

  static func string(_ text: String) -> [UInt8] { little(UInt64(text.utf8.count)) + Array(text.utf8) }

  mutating func add(_ key: String, type: UInt32, _ value: [UInt8]) {
    pairs.append(Self.string(key) + Self.little(type) + value)
  }

  /// Adds a description of a tensor; `dimensions` begin with the innermost, as in the file.
  mutating func addTensor(_ name: String, _ dimensions: [UInt64], type: UInt32, offset: UInt64) {
    tensors.append(
      Self.string(name) + Self.little(UInt32(dimensions.count)) + dimensions.flatMap { Self.little($0) }
        + Self.little(type) + Self.little(offset))
  }

  var bytes: [UInt8] {
    var bytes: [UInt8] = Array("GGUF".utf8) + Self.little(version)
    bytes += Self.little(tensorCount ?? UInt64(tensors.count)) + Self.little(pairCount ?? UInt64(pairs.count))
    bytes += pairs.joined()
    bytes += tensors.joined()
    if !data.isEmpty { bytes += Array(repeating: 0, count: (32 - bytes.count % 32) % 32) + data }
    return bytes
  }
}
