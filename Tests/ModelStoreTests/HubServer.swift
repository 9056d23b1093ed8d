// A local HTTP server that behaves and misbehaves as a test tells it to, and remembers what it was asked.

import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

/// What the server remembers of one request.
struct SeenRequest: Sendable {
  let path: String
  let range: String?
  let ifRange: String?
  let authorization: String?
}

/// What the server does about one request.
struct ScriptedAnswer: Sendable {
  var status = 200
  var headers: [(String, String)] = []
  var body: [UInt8] = []
  /// What `Content-Length` says; nil means the truth.
  var declaredLength: Int?
  /// Send this many bytes of the body only, then close the connection.
  var dropAfter: Int?
  /// Send this many bytes of the body only, then nothing more.
  var stallAfter: Int?
}

/// Serves on 127.0.0.1 at a free port until ``stop()``.
final class HubServer: Sendable {
  typealias Script = @Sendable (SeenRequest, Int) -> ScriptedAnswer

  private let channel: any Channel
  private let log: RequestLog
  var requests: [SeenRequest] { log.all }
  var port: Int { channel.localAddress?.port ?? 0 }
  var endpoint: String { "http://127.0.0.1:\(port)" }

  /// - Parameter script: gives the answer to a request and its number, from 0.
  init(_ script: @escaping Script) async throws {
    let log = RequestLog()
    self.log = log
    channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
      .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
      .childChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.configureHTTPServerPipeline()
          try channel.pipeline.syncOperations.addHandler(ScriptHandler(script: script, log: log))
        }
      }
      .bind(host: "127.0.0.1", port: 0).get()
  }

  func stop() async throws { try await channel.close() }

  /// A server that serves `files` by path as the hub does: ranges, `ETag`, 404 for the rest.
  static func serving(_ files: [String: [UInt8]]) async throws -> HubServer {
    try await HubServer { request, _ in
      guard let body = files[request.path] else { return ScriptedAnswer(status: 404) }
      return answer(body, to: request)
    }
  }

  /// The right answer to a request for `body`, with its range.
  static func answer(_ body: [UInt8], to request: SeenRequest, etag: String = "\"v1\"") -> ScriptedAnswer {
    let text = request.range?.dropFirst("bytes=".count).split(separator: "-").first
    guard let start = text.flatMap({ Int($0) }), request.ifRange == nil || request.ifRange == etag else {
      return ScriptedAnswer(headers: [("ETag", etag)], body: body)
    }
    guard start < body.count else {
      return ScriptedAnswer(status: 416, headers: [("Content-Range", "bytes */\(body.count)")])
    }
    return ScriptedAnswer(
      status: 206,
      headers: [("ETag", etag), ("Content-Range", "bytes \(start)-\(body.count - 1)/\(body.count)")],
      body: Array(body[start...]))
  }
}

private final class RequestLog: Sendable {
  private let requests = Mutex<[SeenRequest]>([])
  var all: [SeenRequest] { requests.withLock { $0 } }
  func add(_ request: SeenRequest) -> Int {
    requests.withLock {
      $0.append(request)
      return $0.count - 1
    }
  }
}

private final class ScriptHandler: ChannelInboundHandler {
  typealias InboundIn = HTTPServerRequestPart
  typealias OutboundOut = HTTPServerResponsePart

  private let script: HubServer.Script
  private let log: RequestLog

  init(script: @escaping HubServer.Script, log: RequestLog) {
    self.script = script
    self.log = log
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    guard case .head(let head) = unwrapInboundIn(data) else { return }
    let request = SeenRequest(
      path: String(head.uri.split(separator: "?")[0]),
      range: head.headers.first(name: "range"), ifRange: head.headers.first(name: "if-range"),
      authorization: head.headers.first(name: "authorization"))
    let answer = script(request, log.add(request))
    var headers = HTTPHeaders(answer.headers)
    headers.add(name: "Content-Length", value: "\(answer.declaredLength ?? answer.body.count)")
    let status = HTTPResponseStatus(statusCode: answer.status)
    context.write(
      wrapOutboundOut(.head(.init(version: .http1_1, status: status, headers: headers))), promise: nil)
    let cut = answer.dropAfter ?? answer.stallAfter ?? answer.body.count
    context.write(
      wrapOutboundOut(.body(.byteBuffer(ByteBuffer(bytes: answer.body.prefix(cut))))), promise: nil)
    context.flush()
    if answer.stallAfter != nil { return }
    if answer.dropAfter != nil || answer.declaredLength != nil { return context.close(promise: nil) }
    context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
  }
}
