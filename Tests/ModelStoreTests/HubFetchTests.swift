// Fetching a manifest model from a hub that behaves and misbehaves: nothing but the right bytes may end up in
// place, and what was downloaded must be used again.

import Foundation
import KindredModelStore
import Synchronization
import Testing

@Suite struct HubFetchTests {
  private let fixture = StoreFixture()
  private var store: ModelStore { fixture.store }

  @Test func fetchesChecksAndRenames() async throws {
    let server = try await HubServer.serving([StoreFixture.remotePath: fixture.bytes])
    let progress = Mutex<[FetchProgress]>([])
    let fetched = try await store.fetch("tiny", options: fixture.options(server.endpoint)) { event in
      if case .progress(let state) = event { progress.withLock { $0.append(state) } }
    }
    #expect(fetched.map(\.status) == [.fetched])
    #expect(fetched[0].path == fixture.destination)
    fixture.expectInPlace()
    let last = try #require(progress.withLock { $0.last })
    #expect(last.bytes == fixture.bytes.count && last.totalBytes == fixture.bytes.count)
    #expect(try store.path(of: "tiny") == fixture.destination)
    try await server.stop()
  }

  @Test func doesNothingWhenPresentAndVerifiesOnDemand() async throws {
    let server = try await HubServer.serving([StoreFixture.remotePath: fixture.bytes])
    var options = fixture.options(server.endpoint)
    _ = try await store.fetch("tiny", options: options)
    #expect(try await store.fetch("tiny", options: options).map(\.status) == [.present])
    options.verify = true
    #expect(try await store.fetch("tiny", options: options).map(\.status) == [.verified])
    #expect(server.requests.count == 1)

    var damaged = fixture.bytes
    damaged[1000] ^= 1
    try Data(damaged).write(to: URL(fileURLWithPath: fixture.destination))
    let error = await failure { [options] in _ = try await store.fetch("tiny", options: options) }
    guard case .checksumMismatch(_, let expected, let found, _)? = error else {
      Issue.record("expected a checksum error, found \(String(describing: error))")
      return
    }
    #expect(expected == sha256(fixture.bytes) && found == sha256(damaged))
    try await server.stop()
  }

  @Test func resumesAfterDroppedConnections() async throws {
    let bytes = fixture.bytes
    let server = try await HubServer { request, number in
      var answer = HubServer.answer(bytes, to: request)
      if number < 3 { answer.dropAfter = 60_000 }
      return answer
    }
    _ = try await store.fetch("tiny", options: fixture.options(server.endpoint))
    fixture.expectInPlace()
    // How much of what was sent before the cut arrives is up to the network; that it is used is not.
    let starts = server.requests.map { request in
      Int(request.range?.dropFirst("bytes=".count).dropLast() ?? "0") ?? -1
    }
    #expect(starts.count == 4 && starts == starts.sorted() && Set(starts).count == 4, "\(starts)")
    #expect(server.requests.dropFirst().allSatisfy { $0.ifRange == "\"v1\"" })
    try await server.stop()
  }

  @Test func resumesAfterCancellation() async throws {
    let bytes = fixture.bytes
    let server = try await HubServer { request, number in
      var answer = HubServer.answer(bytes, to: request)
      if number == 0 { answer.stallAfter = 100_000 }
      return answer
    }
    let options = fixture.options(server.endpoint)
    let task = Task { [options, store] in try await store.fetch("tiny", options: options) }
    while contents(fixture.part)?.isEmpty ?? true { try await Task.sleep(for: .milliseconds(5)) }
    task.cancel()
    let error = await failure { _ = try await task.value }
    #expect(error == .cancelled)
    #expect(contents(fixture.destination) == nil)
    let kept = try #require(contents(fixture.part)).count
    #expect(kept > 0 && kept <= 100_000)

    _ = try await store.fetch("tiny", options: options)
    fixture.expectInPlace()
    #expect(server.requests.last?.range == "bytes=\(kept)-")
    try await server.stop()
  }

  @Test func restartsWhenRangeIsAnsweredWith200() async throws {
    let bytes = fixture.bytes
    try fixture.leavePart(bytes.prefix(1000))
    let server = try await HubServer { _, _ in ScriptedAnswer(body: bytes) }
    _ = try await store.fetch("tiny", options: fixture.options(server.endpoint))
    fixture.expectInPlace()
    #expect(server.requests.map(\.range) == ["bytes=1000-"])
    try await server.stop()
  }

  @Test func restartsWhenTheRangeIsNotTheOneAskedFor() async throws {
    let bytes = fixture.bytes
    try fixture.leavePart(bytes.prefix(1000))
    let server = try await HubServer { request, number in
      guard number == 0 else { return HubServer.answer(bytes, to: request) }
      return ScriptedAnswer(
        status: 206, headers: [("Content-Range", "bytes 500-299999/300000")], body: Array(bytes[500...]))
    }
    _ = try await store.fetch("tiny", options: fixture.options(server.endpoint))
    fixture.expectInPlace()
    try await server.stop()
  }

  @Test func restartsOn416AndWhenThePartIsTooLong() async throws {
    let bytes = fixture.bytes
    try fixture.leavePart(bytes.prefix(2000))
    let server = try await HubServer { request, number in
      number == 0 ? ScriptedAnswer(status: 416) : HubServer.answer(bytes, to: request)
    }
    _ = try await store.fetch("tiny", options: fixture.options(server.endpoint))
    fixture.expectInPlace()
    #expect(server.requests.map(\.range) == ["bytes=2000-", nil])

    try FileManager.default.removeItem(atPath: fixture.destination)
    try fixture.leavePart(bytes + [1, 2, 3])
    _ = try await store.fetch("tiny", options: fixture.options(server.endpoint))
    fixture.expectInPlace()
    try await server.stop()
  }

  @Test func completePartNeedsNoRequest() async throws {
    let server = try await HubServer.serving([:])
    try fixture.leavePart(fixture.bytes)
    _ = try await store.fetch("tiny", options: fixture.options(server.endpoint))
    fixture.expectInPlace()
    #expect(server.requests.isEmpty)
    try await server.stop()
  }

  @Test func wrongBytesAreNeverPutInPlace() async throws {
    var wrong = fixture.bytes
    wrong[299_999] ^= 0x80
    let server = try await HubServer.serving([StoreFixture.remotePath: wrong])
    let error = await failure { _ = try await store.fetch("tiny", options: fixture.options(server.endpoint)) }
    guard case .checksumMismatch(_, let expected, let found, _)? = error else {
      Issue.record("expected a checksum error, found \(String(describing: error))")
      return
    }
    #expect(expected == sha256(fixture.bytes) && found == sha256(wrong))
    #expect(fixture.names == [])
    try await server.stop()
  }

  @Test func aStalePartIsFoundOutAndTheNextTryIsRight() async throws {
    let server = try await HubServer.serving([StoreFixture.remotePath: fixture.bytes])
    try fixture.leavePart([UInt8](repeating: 0, count: 5000))
    let options = fixture.options(server.endpoint)
    let error = await failure { _ = try await store.fetch("tiny", options: options) }
    guard case .checksumMismatch? = error else {
      Issue.record("expected a checksum error, found \(String(describing: error))")
      return
    }
    #expect(fixture.names == [])
    _ = try await store.fetch("tiny", options: options)
    fixture.expectInPlace()
    try await server.stop()
  }

  @Test(arguments: [299_000, 301_000])
  func refusesAWrongDeclaredLength(_ declared: Int) async throws {
    let bytes = fixture.bytes
    let server = try await HubServer { request, _ in
      var answer = HubServer.answer(bytes, to: request)
      answer.declaredLength = declared
      return answer
    }
    let error = await failure { _ = try await store.fetch("tiny", options: fixture.options(server.endpoint)) }
    #expect(
      error
        == .wrongSize("tiny model.gguf", expected: 300_000, found: declared, place: "offered by 127.0.0.1"))
    #expect(fixture.names == [])
    try await server.stop()
  }

  @Test func refusesAnotherSumBeforeDownloading() async throws {
    let bytes = fixture.bytes
    let other = String(repeating: "a", count: 64)
    let server = try await HubServer { _, _ in
      ScriptedAnswer(headers: [("X-Linked-ETag", "\"\(other)\"")], body: bytes)
    }
    let error = await failure { _ = try await store.fetch("tiny", options: fixture.options(server.endpoint)) }
    guard case .checksumMismatch(_, _, other, _)? = error else {
      Issue.record("expected a checksum error, found \(String(describing: error))")
      return
    }
    #expect(fixture.names == [])
    try await server.stop()
  }

  @Test(arguments: [429, 500, 503])
  func waitsAndTriesAgain(_ status: Int) async throws {
    let bytes = fixture.bytes
    let server = try await HubServer { request, number in
      number == 0
        ? ScriptedAnswer(status: status, headers: [("Retry-After", "1")])
        : HubServer.answer(bytes, to: request)
    }
    let clock = ContinuousClock()
    let time = try await clock.measure {
      _ = try await store.fetch("tiny", options: fixture.options(server.endpoint))
    }
    fixture.expectInPlace()
    #expect(time >= .milliseconds(990), "Retry-After: 1 asks for a second")
    try await server.stop()
  }

  @Test func givesUpOnAServerThatKeepsFailing() async throws {
    let server = try await HubServer { _, _ in ScriptedAnswer(status: 503) }
    let error = await failure { _ = try await store.fetch("tiny", options: fixture.options(server.endpoint)) }
    guard case .transferFailed(_, 4, "status 503")? = error else {
      Issue.record("expected 4 failures, found \(String(describing: error))")
      return
    }
    #expect(server.requests.count == 4)
    #expect(fixture.names == [])
    try await server.stop()
  }

  @Test func survivesAStallingServer() async throws {
    let bytes = fixture.bytes
    let server = try await HubServer { request, number in
      var answer = HubServer.answer(bytes, to: request)
      if number < 2 { answer.stallAfter = 90_000 }
      return answer
    }
    var options = fixture.options(server.endpoint)
    options.patience.read = .seconds(2)
    options.patience.attempts = 100
    _ = try await store.fetch("tiny", options: options)
    fixture.expectInPlace()
    // Each goes on from what the one before brought: 90,000 bytes of those that stall, or fewer if this machine was too
    // busy to take them; then even a server that does not stall can seem to.
    let starts = server.requests.map { Int($0.range?.dropFirst("bytes=".count).dropLast() ?? "0") ?? -1 }
    #expect(starts.count >= 3 && starts[0] == 0, "\(starts)")
    #expect(zip(starts, starts.dropFirst()).allSatisfy { $0 < $1 }, "\(starts)")
    #expect(zip(starts, starts.dropFirst()).prefix(2).allSatisfy { $1 - $0 <= 90_000 }, "\(starts)")
    try await server.stop()
  }

  @Test(arguments: [401, 403, 404])
  func refusalsAreNotRepeated(_ status: Int) async throws {
    let server = try await HubServer { _, _ in ScriptedAnswer(status: status) }
    let error = await failure { _ = try await store.fetch("tiny", options: fixture.options(server.endpoint)) }
    let text = try #require(error).description
    #expect(text.contains("\(status)") && text.contains("HF_TOKEN") == (status != 404))
    #expect(server.requests.count == 1)
    try await server.stop()
  }

  @Test func theTokenStaysWithTheHub() async throws {
    let bytes = fixture.bytes
    let network = try await HubServer { request, _ in HubServer.answer(bytes, to: request) }
    let elsewhere = network.endpoint + "/blob"
    let hub = try await HubServer { request, _ in
      request.path == "/again"
        ? ScriptedAnswer(status: 302, headers: [("Location", elsewhere)])
        : ScriptedAnswer(status: 307, headers: [("Location", "/again"), ("X-Linked-Size", "300000")])
    }
    _ = try await store.fetch("tiny", options: fixture.options(hub.endpoint, token: "secret"))
    fixture.expectInPlace()
    #expect(hub.requests.map(\.authorization) == ["Bearer secret", "Bearer secret"])
    #expect(network.requests.map(\.authorization) == [nil])
    try await hub.stop()
    try await network.stop()
  }

  @Test func redirectsEnd() async throws {
    let hub = try await HubServer { _, _ in ScriptedAnswer(status: 302, headers: [("Location", "/round")]) }
    let error = await failure { _ = try await store.fetch("tiny", options: fixture.options(hub.endpoint)) }
    guard case .malformedAnswer? = error else {
      Issue.record("expected an error about redirects, found \(String(describing: error))")
      return
    }
    try await hub.stop()
  }

  @Test(.timeLimit(.minutes(1))) func anUnreachableHubIsGivenUpAtOnce() async throws {
    let server = try await HubServer.serving([:])
    let endpoint = server.endpoint
    try await server.stop()
    // Retries would last beyond the suite's time limit.
    var options = fixture.options(endpoint)
    options.patience.attempts = 100
    options.patience.firstPause = .seconds(60)
    let error = await failure { _ = try await store.fetch("tiny", options: options) }
    guard case .unreachable(host: "127.0.0.1", _)? = error else {
      Issue.record("expected an unreachable host, found \(String(describing: error))")
      return
    }
    #expect(fixture.names == [])
  }
}
