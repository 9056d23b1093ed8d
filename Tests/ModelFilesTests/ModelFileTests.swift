// Opening models by path, mapped files, and errors as the user reads them.

import Foundation
import KindredModelFiles
import Testing

@Suite struct ModelFileTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func description(_ path: String) -> String? {
    #expect(throws: ModelFileError.self) { try ModelFile(path: path) }?.description
  }

  @Test func opensEachFormat() throws {
    guard case .gguf(let gguf) = try ModelFile(path: fixture("small.gguf")) else { throw Unexpected() }
    #expect(gguf.tensorNames == ["weights", "blocks"])
    guard case .huggingFace(let folder) = try ModelFile(path: fixture("single")) else { throw Unexpected() }
    #expect(folder.tensorNames.count == 7)
    guard case .safetensors(let file) = try ModelFile(path: fixture("small.safetensors")) else {
      throw Unexpected()
    }
    #expect(file.tensorNames == ["a", "b"])
  }

  private struct Unexpected: Error {}

  @Test func saysWhatIsWrongInOneLine() throws {
    let missing = "\(folder.path)/missing.gguf"
    #expect(description(missing) == "\(missing): No such file or directory")
    let empty = try folder.write([], as: "empty.gguf")
    #expect(description(empty) == "\(empty): expected a model file, found an empty file")
    #expect(
      description(folder.path) == "\(folder.path): expected a model folder with config.json, found none")
    try folder.write("{}".utf8, as: "config.json")
    #expect(
      description(folder.path) == "\(folder.path): expected weights in model.safetensors or "
        + "model.safetensors.index.json, found neither")
    let short = try folder.write([1, 2], as: "short.safetensors")
    #expect(
      description(short) == "\(short): at byte 0: header length: expected 8 more bytes, found the end of the "
        + "file after 2")
    #expect(description("") == "No such file or directory")
  }

  @Test func aPipeIsNoModel() throws {
    let path = "\(folder.path)/pipe.gguf"
    #expect(mkfifo(path, 0o600) == 0)
    #expect(description(path) == "\(path): expected a regular file, found a device, pipe or socket")
  }

  @Test func errorsCannotForgeLines() {
    let error = ModelFileError(path: "a\nb", offset: 3, field: "\u{1B}[2J", problem: "x\u{2028}y\u{202E}")
    #expect(error.description == #"a\nb: at byte 3: \u{1B}[2J: x\u{2028}y\u{202E}"#)
  }

  @Test func mappedTensorsOutliveTheirFile() throws {
    let path = try folder.write(bytes(of: fixture("small.gguf")), as: "removed.gguf")
    let tensor = try #require(try GGUFFile(path: path).tensor(named: "weights"))
    try FileManager.default.removeItem(atPath: path)
    #expect(tensor.withBytes { $0.loadUnaligned(fromByteOffset: 28, as: Float.self) } == 7)
  }

  @Test func pagesCanBeReleasedAndPrefetched() throws {
    let pages = 64
    var builder = GGUFBuilder()
    builder.addTensor("t", [UInt64(1_024 * pages)], type: 0, offset: 0)
    builder.data = (0..<4_096 * pages).map { UInt8(truncatingIfNeeded: $0 / 4_096) }
    let path = try folder.write(builder.bytes, as: "pages.gguf")
    let tensor = try #require(try GGUFFile(path: path).tensor(named: "t"))
    func sum() -> Int { tensor.withBytes { $0.reduce(0) { $0 + Int($1) } } }

    let before = sum()
    #expect(before == 4_096 * (0..<pages).reduce(0, +))
    #if os(Linux)
      #expect(try residentKilobytes(of: path) >= 4 * pages)
      tensor.releasePages()
      #expect(try residentKilobytes(of: path) == 0)
    #endif
    tensor.prefetch()
    #expect(sum() == before)
  }

  @Test func aGeneratedTensorHasNoPages() {
    let values = UnsafeMutableRawBufferPointer.allocate(byteCount: 8, alignment: 4)
    defer { values.deallocate() }
    values.copyBytes(from: [1, 2, 3, 4, 5, 6, 7, 8])
    let tensor = ModelTensor(
      name: "t", type: .f32, shape: [2], owner: 0, bytes: UnsafeRawBufferPointer(values))
    tensor.releasePages()
    tensor.prefetch()
    #expect(tensor.withBytes { Array($0) } == [1, 2, 3, 4, 5, 6, 7, 8])
  }

  /// How much of the mappings of `path` is in this process's resident set.
  private func residentKilobytes(of path: String) throws -> Int {
    // Read to its end: the file has no size, and Foundation's one-call readers stop after the first part.
    var maps = ""
    let handle = try #require(FileHandle(forReadingAtPath: "/proc/self/smaps"))
    while let part = try handle.read(upToCount: 1 << 16), !part.isEmpty {
      maps += String(decoding: part, as: UTF8.self)
    }
    var total = 0
    var isMapping = false
    for line in maps.split(separator: "\n") {
      if line.contains("-"), line.contains(" r") { isMapping = line.hasSuffix(path) }
      if isMapping, line.hasPrefix("Rss:") {
        total += line.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
      }
    }
    return total
  }
}
