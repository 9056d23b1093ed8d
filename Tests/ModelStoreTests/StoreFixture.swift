// A store in a folder of its own, a small model to fetch into it, and options that do not pause long.

import Crypto
import Foundation
import KindredModelStore
import Testing

/// A store in a new folder, removed with the fixture.
final class StoreFixture: Sendable {
  let store: ModelStore
  /// The right bytes of the model, 300,000 of them.
  var bytes: [UInt8] { Self.modelBytes }
  let destination: String
  var part: String { destination + ".part" }

  private static let modelBytes = (0..<300_000).map { _ in UInt8.random(in: 0...255) }
  static let name = "tiny"
  static let remotePath = "/owner/repo/resolve/main/tiny%20model.gguf"

  init(wheels: WheelSlices? = nil) {
    let bytes = Self.modelBytes
    let folder = NSTemporaryDirectory() + "/kindred-store-\(UUID().uuidString)"
    let model = ManifestModel(
      name: Self.name, file: "tiny model.gguf", bytes: bytes.count, sha256: sha256(bytes),
      sources: [.hub(repository: "owner/repo", file: "tiny model.gguf")] + (wheels.map { [.pypi($0)] } ?? []))
    store = ModelStore(root: folder, environment: [:], manifest: ModelManifest(models: [model]))
    destination = "\(folder)/models/tiny/tiny model.gguf"
  }

  deinit { try? FileManager.default.removeItem(atPath: store.root) }

  func options(_ endpoint: String, token: String? = nil) -> FetchOptions {
    var options = FetchOptions(environment: ProcessInfo.processInfo.environment)
    options.hubEndpoint = endpoint
    options.hubToken = token
    options.sources = [.hub]
    options.patience.connect = .seconds(600)
    // Long enough for a machine that is busy with other tests.
    options.patience.read = .seconds(600)
    options.patience.attempts = 4
    options.patience.progress = 50_000
    options.patience.firstPause = .milliseconds(5)
    options.patience.longestPause = .milliseconds(1200)
    return options
  }

  /// Puts bytes where an interrupted fetch would have left them.
  func leavePart(_ bytes: some Sequence<UInt8>, etag: String? = nil) throws {
    let folder = (destination as NSString).deletingLastPathComponent
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    try Data(bytes).write(to: URL(fileURLWithPath: part))
    if let etag { try Data(etag.utf8).write(to: URL(fileURLWithPath: part + ".etag")) }
  }

  /// The fetch's outcome is the right file, and nothing beside it.
  func expectInPlace(sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(contents(destination) == bytes, sourceLocation: sourceLocation)
    #expect(names == ["tiny model.gguf"], sourceLocation: sourceLocation)
  }

  /// Everything in the model's folder.
  var names: [String] {
    let folder = (destination as NSString).deletingLastPathComponent
    return ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).sorted()
  }
}

func contents(_ path: String) -> [UInt8]? { FileManager.default.contents(atPath: path).map { [UInt8]($0) } }

func sha256(_ bytes: [UInt8]) -> String {
  SHA256.hash(data: bytes).map { String(format: "%02x", $0) }.joined()
}

/// The error that a fetch ends with.
func failure(_ body: () async throws -> Void) async -> ModelStoreError? {
  do {
    try await body()
    return nil
  } catch {
    return error as? ModelStoreError
  }
}
