// Talks to the Hugging Face hub: requests with a token that stays with the hub, redirects, repetition.
//
// Follows the hub's HTTP interface: `GET /OWNER/REPO/resolve/main/FILE` answers with the file or redirects to
// a content network; `X-Linked-Size` and `X-Linked-ETag` then give size and SHA-256 of a large file. Redirects
// are followed by hand, because those headers stand on the redirecting answer and because the token must not
// travel with them. Checked against a local server (`Tests/ModelStoreTests`).

import AsyncHTTPClient
import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix

/// Why one try of a request ended.
enum TryError: Error {
  /// It may go better the next time; the server may have said when.
  case again(reason: String, after: Duration? = nil)
  /// No connection came about.
  case unreachable(host: String, reason: String)
  /// It will not go better.
  case final(ModelStoreError)
}

/// An answer after all redirects.
struct HubAnswer {
  /// Where the answer came from.
  let url: URL
  let response: HTTPClientResponse
  /// Size of the file as the hub gave it on the way, where it did.
  let linkedSize: Int?
  /// SHA-256 of the file as the hub gave it on the way, where it did.
  let sha256: String?
}

/// A connection to the hub for the length of one fetch; ends with ``shutdown()``.
struct HubClient: Sendable {
  let patience: Patience
  private let endpoint: String
  private let origin: String
  private let token: String?
  private let http: HTTPClient

  init(options: FetchOptions) throws(ModelStoreError) {
    var endpoint = options.hubEndpoint
    while endpoint.hasSuffix("/") { endpoint.removeLast() }
    guard let url = URL(string: endpoint), let origin = Self.origin(of: url) else {
      throw .malformedAnswer(url: endpoint, reason: "HF_ENDPOINT must be an http or https address")
    }
    var configuration = HTTPClient.Configuration()
    configuration.redirectConfiguration = .disallow
    configuration.httpVersion = .http1Only
    configuration.connectionPool.retryConnectionEstablishment = false
    configuration.timeout.connect = TimeAmount(options.patience.connect)
    configuration.timeout.read = TimeAmount(options.patience.read)
    http = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
    token = options.hubToken
    patience = options.patience
    self.endpoint = endpoint
    self.origin = origin
  }

  /// Closes the connections. The client cannot be used afterwards.
  func shutdown() async {
    // Nothing can be done, nor needs to be, about a connection that does not close.
    try? await http.shutdown()
  }

  /// The address of a file of a repository.
  func fileURL(repository: String, file: String) throws(ModelStoreError) -> URL {
    let path = file.addingPercentEncoding(withAllowedCharacters: .urlPathAllowed) ?? file
    return try url("\(repository)/resolve/main/\(path)")
  }

  /// The address of a repository's description, with the sizes and sums of its files.
  func listingURL(repository: String) throws(ModelStoreError) -> URL {
    try url("api/models/\(repository)?blobs=true")
  }

  private func url(_ path: String) throws(ModelStoreError) -> URL {
    guard let url = URL(string: "\(endpoint)/\(path)") else {
      throw .malformedAnswer(url: "\(endpoint)/\(path)", reason: "not an address")
    }
    return url
  }

  /// Sends one GET and follows redirects. The token goes to the hub's own scheme, host and port only.
  ///
  /// - Returns: an answer with status 200, 206 or 416.
  func get(_ start: URL, headers: HTTPHeaders = [:]) async throws(TryError) -> HubAnswer {
    var url = start
    var linkedSize: Int?
    var sha256: String?
    for _ in 0..<8 {
      let isHub = Self.origin(of: url) == origin
      let response = try await send(url, headers: headers, withToken: isHub)
      linkedSize = response.headers.first(name: "x-linked-size").flatMap(Int.init) ?? linkedSize
      // A content network's own ETag may look like a sum without being one.
      let tag =
        response.headers.first(name: "x-linked-etag") ?? (isHub ? response.headers.first(name: "etag") : nil)
      sha256 = tag.flatMap(Self.sha256(fromETag:)) ?? sha256
      guard [301, 302, 303, 307, 308].contains(response.status.code) else {
        try check(response, url: url)
        return HubAnswer(url: url, response: response, linkedSize: linkedSize, sha256: sha256)
      }
      guard let location = response.headers.first(name: "location"),
        let next = URL(string: location, relativeTo: url)?.absoluteURL, Self.origin(of: next) != nil,
        !(url.scheme == "https" && next.scheme == "http")
      else {
        throw .final(.malformedAnswer(url: Self.text(of: url), reason: "a redirect to no usable address"))
      }
      url = next
    }
    throw .final(.malformedAnswer(url: start.absoluteString, reason: "more than 8 redirects"))
  }

  private func send(_ url: URL, headers: HTTPHeaders, withToken: Bool) async throws(TryError)
    -> HTTPClientResponse
  {
    var request = HTTPClientRequest(url: url.absoluteString)
    request.headers = headers
    request.headers.add(name: "User-Agent", value: "kindred")
    // Sizes and ranges are those of the file only when it is not compressed on the way.
    request.headers.add(name: "Accept-Encoding", value: "identity")
    if withToken, let token { request.headers.add(name: "Authorization", value: "Bearer \(token)") }
    do {
      return try await http.execute(request, deadline: .distantFuture)
    } catch {
      throw Self.tryError(error, host: url.host ?? url.absoluteString)
    }
  }

  /// Lets 200, 206 and 416 pass and turns every other status into an error.
  private func check(_ response: HTTPClientResponse, url: URL) throws(TryError) {
    let status = Int(response.status.code)
    switch status {
    case 200, 206, 416: return
    case 401, 403:
      throw .final(.unauthorized(url: Self.text(of: url), status: status, hasToken: token != nil))
    case 408, 425, 429, 500, 502, 503, 504:
      let seconds = response.headers.first(name: "retry-after").flatMap(Int.init)
      throw .again(
        reason: "status \(status)", after: seconds.map { .seconds(min(max($0, 0), 3600)) })
    default:
      throw .final(.httpStatus(url: Self.text(of: url), status: status))
    }
  }

  /// Runs `body` until it succeeds, fails for good, or fails too often without `position` growing.
  ///
  /// A host that could not be reached at all is given up at once: then the machine is most likely offline,
  /// and another source should get its turn.
  func repeating<Result>(
    _ url: URL, position: () -> Int, body: () async throws(TryError) -> Result
  ) async throws(ModelStoreError) -> Result {
    var failures = 0
    var answered = false
    while true {
      let before = position()
      var reason = ""
      var serverAsks: Duration?
      do {
        return try await body()
      } catch {
        switch error {
        case .final(let error): throw error
        case .unreachable(let host, let cause):
          guard answered else { throw .unreachable(host: host, reason: cause) }
          reason = cause
        case .again(let cause, let after):
          (reason, serverAsks, answered) = (cause, after, true)
        }
      }
      failures = position() - before >= patience.progress ? 1 : failures + 1
      guard failures < patience.attempts else {
        throw .transferFailed(url: url.absoluteString, attempts: failures, reason: reason)
      }
      do {
        try await Task.sleep(for: patience.pause(afterFailures: failures, serverAsks: serverAsks))
      } catch {
        throw .cancelled
      }
    }
  }

  /// Sorts a failure of the transport by what can be done about it.
  static func tryError(_ error: any Error, host: String) -> TryError {
    if let error = error as? ModelStoreError { return .final(error) }
    if Task.isCancelled || error is CancellationError { return .final(.cancelled) }
    if let error = error as? NIOConnectionError {
      let cause = error.connectionErrors.first.map { oneLine("\($0.error)") }
      return .unreachable(host: host, reason: cause ?? "the host name cannot be resolved")
    }
    if let error = error as? IOError, [ECONNREFUSED, EHOSTUNREACH, ENETUNREACH].contains(error.errnoCode) {
      return .unreachable(host: host, reason: String(cString: strerror(error.errnoCode)))
    }
    switch error as? HTTPClientError {
    case .connectTimeout?: return .unreachable(host: host, reason: "no answer in time")
    case .readTimeout?: return .again(reason: "the server stalled")
    case .remoteConnectionClosed?: return .again(reason: "the connection was closed too early")
    default: return .again(reason: oneLine("\(error)"))
    }
  }

  /// An address for a message: without its query, which may hold a signature.
  private static func text(of url: URL) -> String {
    url.absoluteString.split(separator: "?").first.map(String.init) ?? ""
  }

  /// Scheme, host and port of an http or https address; nil for anything else.
  private static func origin(of url: URL) -> String? {
    guard let scheme = url.scheme?.lowercased(), ["http", "https"].contains(scheme),
      let host = url.host?.lowercased(), !host.isEmpty
    else { return nil }
    return "\(scheme)://\(host):\(url.port ?? (scheme == "https" ? 443 : 80))"
  }

  /// The sum inside an `ETag`, where it is one: 64 hexadecimal digits.
  private static func sha256(fromETag tag: String) -> String? {
    let text = (tag.hasPrefix("W/") ? tag.dropFirst(2) : tag[...]).filter { $0 != "\"" }.lowercased()
    return text.utf8.count == 64 && text.allSatisfy(\.isHexDigit) ? text : nil
  }
}
