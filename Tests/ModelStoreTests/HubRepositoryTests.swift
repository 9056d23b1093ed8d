// `hf:OWNER/REPO[:FILE]`: what is chosen from a repository, where it is put, and names that must be refused.

import Foundation
import KindredModelStore
import Testing

@Suite struct HubRepositoryTests {
  private let fixture = StoreFixture()
  private var store: ModelStore { fixture.store }
  private static let api = "/api/models/owner/repo"

  private func listing(_ files: [(name: String, body: [UInt8])]) throws -> [UInt8] {
    let siblings = files.map { file -> [String: Any] in
      let large: [String: Any] = ["sha256": sha256(file.body), "size": file.body.count]
      let entry: [String: Any] = ["rfilename": file.name, "size": file.body.count]
      return file.name.hasSuffix(".safetensors") ? entry.merging(["lfs": large]) { $1 } : entry
    }
    return [UInt8](try JSONSerialization.data(withJSONObject: ["id": "owner/repo", "siblings": siblings]))
  }

  /// A server for a repository with these files.
  private func server(_ files: [(name: String, body: [UInt8])]) async throws -> HubServer {
    var served = [Self.api: try listing(files)]
    for file in files { served["/owner/repo/resolve/main/\(file.name)"] = file.body }
    return try await HubServer.serving(served)
  }

  private func fetchFailure(_ argument: String, _ server: HubServer) async -> ModelStoreError? {
    await failure { _ = try await store.fetch(argument, options: fixture.options(server.endpoint)) }
  }

  @Test func fetchesTheOnlyGGUFFile() async throws {
    let server = try await server([("README.md", [1]), ("m.Q4_0.gguf", fixture.bytes)])
    let fetched = try await store.fetch("hf:owner/repo", options: fixture.options(server.endpoint))
    let path = "\(store.root)/models/owner/repo/m.Q4_0.gguf"
    let model = try #require(fetched.first)
    #expect(model.name == "hf:owner/repo" && model.path == path && model.bytes == 300_000)
    #expect(model.status == .fetched && model.source == .hub)
    #expect(contents(path) == fixture.bytes)
    #expect(try store.locate("hf:owner/repo") == path)
    let again = try await store.fetch("hf:owner/repo", options: fixture.options(server.endpoint))
    #expect(again.map(\.status) == [.present])
    try await server.stop()
  }

  @Test func severalGGUFFilesAreListedAndOneCanBeNamed() async throws {
    let server = try await server([("a.gguf", [1, 2]), ("sub/b.gguf", [3, 4, 5])])
    #expect(
      await fetchFailure("hf:owner/repo", server)
        == .severalModelsInRepository("owner/repo", files: ["a.gguf", "sub/b.gguf"]))
    let fetched = try await store.fetch("hf:owner/repo:sub/b.gguf", options: fixture.options(server.endpoint))
    #expect(contents(fetched[0].path) == [3, 4, 5])
    #expect(try store.locate("hf:owner/repo:sub/b.gguf") == fetched[0].path)
    #expect(
      await fetchFailure("hf:owner/repo:c.gguf", server)
        == .noSuchFileInRepository("owner/repo", file: "c.gguf"))
    try await server.stop()
  }

  @Test func fetchesAFolderWithConfigurationLast() async throws {
    let files: [(name: String, body: [UInt8])] = [
      ("config.json", [123, 125]), ("consolidated.safetensors", [9]), (".gitattributes", [1]),
      ("model-00001-of-00002.safetensors", [1, 2, 3]), ("model-00002-of-00002.safetensors", fixture.bytes),
      ("model.safetensors.index.json", [4]), ("tokenizer.json", [5]), ("original/model.safetensors", [6]),
      ("added_tokens.json", []),
    ]
    let server = try await server(files)
    let fetched = try await store.fetch("hf:owner/repo", options: fixture.options(server.endpoint))
    let folder = "\(store.root)/models/owner/repo"
    #expect(fetched.map(\.path) == [folder])
    #expect(
      try FileManager.default.contentsOfDirectory(atPath: folder).sorted() == [
        "added_tokens.json", "config.json", "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.json",
      ])
    #expect(contents("\(folder)/model-00002-of-00002.safetensors") == fixture.bytes)
    #expect(server.requests.last?.path == "/owner/repo/resolve/main/config.json")
    #expect(try store.locate("hf:owner/repo") == folder)
    try await server.stop()
  }

  @Test func theHubsSumIsChecked() async throws {
    let right = [UInt8](repeating: 7, count: 5000)
    let wrong = [UInt8](repeating: 8, count: 5000)
    let server = try await HubServer.serving([
      Self.api: try listing([("model.safetensors", right), ("config.json", [123, 125])]),
      "/owner/repo/resolve/main/model.safetensors": wrong,
    ])
    let error = await fetchFailure("hf:owner/repo", server)
    guard case .checksumMismatch? = error else {
      Issue.record("expected a checksum error, found \(String(describing: error))")
      return
    }
    #expect(!FileManager.default.fileExists(atPath: "\(store.root)/models/owner/repo/model.safetensors"))
    try await server.stop()
  }

  @Test func theSumInTheLinkedETagIsChecked() async throws {
    let body = fixture.bytes
    let listed = try listing([("a.gguf", body)])
    let sum = sha256([1, 2, 3])
    let server = try await HubServer { request, _ in
      request.path == Self.api
        ? ScriptedAnswer(body: listed)
        : ScriptedAnswer(headers: [("X-Linked-ETag", "\"\(sum)\"")], body: body)
    }
    guard case .checksumMismatch(_, sum, _, _)? = await fetchFailure("hf:owner/repo", server) else {
      Issue.record("expected a checksum error")
      return
    }
    try await server.stop()
  }

  @Test func aChangedFileIsNotGluedToAnOldPart() async throws {
    let old = [UInt8](repeating: 1, count: 4000)
    let new = [UInt8](repeating: 2, count: 6000)
    let listed = try listing([("a.gguf", new)])
    let server = try await HubServer { request, _ in
      request.path == Self.api
        ? ScriptedAnswer(body: listed) : HubServer.answer(new, to: request, etag: "\"v2\"")
    }
    let folder = "\(store.root)/models/owner/repo"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    try Data(old).write(to: URL(fileURLWithPath: "\(folder)/a.gguf.part"))
    try Data("\"v1\"".utf8).write(to: URL(fileURLWithPath: "\(folder)/a.gguf.part.etag"))
    _ = try await store.fetch("hf:owner/repo", options: fixture.options(server.endpoint))
    #expect(contents("\(folder)/a.gguf") == new)
    #expect(server.requests.last?.ifRange == "\"v1\"")
    try await server.stop()
  }

  @Test(arguments: [
    "../../evil.gguf", "/etc/evil.gguf", "a/../../../evil.gguf", "..\\evil.gguf", "a//evil.gguf",
    "evil\u{0}.gguf", "evil\n.gguf", "a.part/evil.gguf", String(repeating: "x", count: 300) + ".gguf",
  ])
  func hostileNamesAreRefused(_ name: String) async throws {
    let server = try await server([(name, [1, 2, 3])])
    #expect(await fetchFailure("hf:owner/repo", server) == .unsafeFileName(name, repository: "owner/repo"))
    #expect(server.requests.count == 1)
    #expect(!FileManager.default.fileExists(atPath: store.root))
    try await server.stop()
  }

  @Test(arguments: [
    "hf:", "hf:owner", "hf:owner/", "hf:/repo", "hf:../repo", "hf:owner/..", "hf:a/b/c", "hf:a b/c",
    "hf:owner/repo:", "hf:owner/repo:../x", "hf:owner/repo:/x", "hf:owner/repo?x",
  ])
  func malformedReferencesAreRefused(_ text: String) {
    #expect(throws: ModelStoreError.invalidReference(text)) { try store.locate(text) }
  }

  @Test func aRepositoryWithoutAModelIsRefused() async throws {
    let server = try await server([("model.bin", [1]), ("config.json", [2])])
    #expect(await fetchFailure("hf:owner/repo", server) == .noModelInRepository("owner/repo"))
    try await server.stop()
  }

  @Test(arguments: ["", "[]", "<html>", "{\"siblings\": 3}", "{\"siblings\": [{}]}"])
  func aListingThatIsNoneIsRefused(_ text: String) async throws {
    let server = try await HubServer.serving([Self.api: Array(text.utf8)])
    guard case .malformedAnswer? = await fetchFailure("hf:owner/repo", server) else {
      Issue.record("expected an error about the listing")
      return
    }
    try await server.stop()
  }

  @Test func absurdSizesMeetTheFreeSpaceCheck() async throws {
    let text = #"{"siblings": [{"rfilename": "a.gguf", "size": 9223372036854775807, "lfs": null}]}"#
    let server = try await HubServer.serving([Self.api: Array(text.utf8)])
    guard case .insufficientDisk(_, Int.max, let available)? = await fetchFailure("hf:owner/repo", server)
    else {
      Issue.record("expected too little room")
      return
    }
    #expect(available > 0 && server.requests.count == 1)
    try await server.stop()
  }
}
