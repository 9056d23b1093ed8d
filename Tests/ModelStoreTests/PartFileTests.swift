// The part file by itself: its lock, a full disk, and what it leaves behind.

import Foundation
import KindredModelStore
import Testing

@Suite struct PartFileTests {
  private let fixture = StoreFixture()

  @Test func twoFetchesDoNotCollide() async throws {
    let server = try await HubServer.serving([StoreFixture.remotePath: fixture.bytes])
    let held = try PartFile(destination: fixture.destination)
    let error = await failure {
      _ = try await fixture.store.fetch("tiny", options: fixture.options(server.endpoint))
    }
    #expect(error == .locked(path: fixture.part))
    let size = held.size
    #expect(size == 0)
    try await server.stop()
  }

  @Test func anEmptyPartLeavesNothing() throws {
    do { _ = try PartFile(destination: fixture.destination) }
    #expect(fixture.names == [])
  }

  @Test func commitPutsTheBytesInPlace() throws {
    do {
      let part = try PartFile(destination: fixture.destination)
      try part.truncate(to: 0)
      try fixture.bytes.withUnsafeBytes { try part.append($0) }
      part.setValidator("\"v\"")
      let validator = part.validator
      #expect(validator == "\"v\"")
      try part.commit(bytes: fixture.bytes.count, sha256: sha256(fixture.bytes))
    }
    fixture.expectInPlace()
    #expect(try PartFile.sha256(ofFile: fixture.destination) == sha256(fixture.bytes))
  }

  @Test func aFullDiskIsOneClearError() async throws {
    // /dev/full accepts no byte: every write to it fails as on a full disk.
    let folder = (fixture.destination as NSString).deletingLastPathComponent
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    try FileManager.default.createSymbolicLink(atPath: fixture.part, withDestinationPath: "/dev/full")
    let server = try await HubServer.serving([StoreFixture.remotePath: fixture.bytes])
    let error = await failure {
      _ = try await fixture.store.fetch("tiny", options: fixture.options(server.endpoint))
    }
    #expect(error == .diskFull(path: fixture.part, kept: 0))
    #expect(server.requests.count == 1)
    #expect(contents(fixture.destination) == nil)
    try await server.stop()
  }

  @Test func tooLittleRoomIsSeenBeforehand() async throws {
    let model = ManifestModel(
      name: "huge", file: "huge.gguf", bytes: 1 << 60, sha256: "",
      sources: [.hub(repository: "a/b", file: "c")])
    let store = ModelStore(root: fixture.store.root, manifest: ModelManifest(models: [model]))
    let error = await failure {
      _ = try await store.fetch("huge", options: fixture.options("http://127.0.0.1:1"))
    }
    guard case .insufficientDisk(_, needed: 1 << 60, let available)? = error else {
      Issue.record("expected too little room, found \(String(describing: error))")
      return
    }
    #expect(available > 0)
  }
}
