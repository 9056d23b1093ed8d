// Downloads one file from the hub into a part file, going on where a former try ended.
//
// Ranges and their validation follow RFC 9110 (§13.1.5 If-Range, §14.4 Content-Range, §15.5.17 status 416).

import AsyncHTTPClient
import Foundation
import NIOCore
import NIOHTTP1

/// A file on the hub, and what is known of it beforehand.
struct HubFile {
  let url: URL
  /// Size in bytes, where known.
  let bytes: Int?
  /// SHA-256 in lower-case hexadecimal, where known.
  let sha256: String?
}

extension HubClient {
  /// Downloads a file into `part`, after whatever of it is already there.
  ///
  /// - Returns: the size and sum that the finished part must have, as far as they are known.
  func download(
    _ file: HubFile, into part: borrowing PartFile, meter: inout ProgressMeter
  ) async throws(ModelStoreError) -> (bytes: Int?, sha256: String?) {
    if let bytes = file.bytes, part.size >= bytes {
      if part.size == bytes { return (bytes, file.sha256) }
      try part.discard()
    }
    return try await repeating(
      file.url, position: { part.size },
      body: { () async throws(TryError) in
        try await tryDownload(file, into: part, meter: &meter)
      })
  }

  private func tryDownload(
    _ file: HubFile, into part: borrowing PartFile, meter: inout ProgressMeter
  ) async throws(TryError) -> (bytes: Int?, sha256: String?) {
    let offset = try prepare(part, file: file)
    var headers = HTTPHeaders()
    if offset > 0 {
      headers.add(name: "Range", value: "bytes=\(offset)-")
      if let validator = part.validator { headers.add(name: "If-Range", value: validator) }
    }
    let answer = try await get(file.url, headers: headers)
    let isComplete = try reconcile(answer, with: part, offset: offset)
    let sha256 = file.sha256 ?? answer.sha256
    let total = try expectedSize(of: file, answer)
    if isComplete { return (total, sha256) }
    if part.size == 0 { part.setValidator(strongETag(answer.response)) }
    do {
      if let total { try requireRoom(for: total - part.size, at: part.path) }
      meter.update(bytes: part.size, total: total)
      for try await chunk in answer.response.body {
        if let total, part.size + chunk.readableBytes > total {
          try part.discard()
          throw ModelStoreError.malformedAnswer(
            url: file.url.absoluteString, reason: "more than the file's \(total) bytes")
        }
        try chunk.withUnsafeReadableBytes { bytes throws(ModelStoreError) in try part.append(bytes) }
        meter.update(bytes: part.size, total: total)
      }
    } catch {
      throw Self.tryError(error, host: answer.url.host ?? "")
    }
    if let total, part.size < total {
      throw .again(reason: "the connection was closed after \(part.size) of \(total) bytes")
    }
    return (total, sha256)
  }

  /// Decides where to go on: at the end of the part, or at 0 where nothing ties its bytes to this file.
  private func prepare(_ part: borrowing PartFile, file: HubFile) throws(TryError) -> Int {
    let isTied = file.sha256 != nil || part.validator != nil
    if isTied { try cut(part, to: part.size) } else { try cut(part, to: 0) }
    return part.size
  }

  /// Makes the part agree with what the server is about to send.
  ///
  /// - Returns: whether the part is complete as it stands, so that the body is of no use.
  private func reconcile(
    _ answer: HubAnswer, with part: borrowing PartFile, offset: Int
  ) throws(TryError) -> Bool {
    let range = contentRange(answer.response)
    switch answer.response.status.code {
    case 206 where offset > 0 && range?.start == offset:
      return false
    case 206:
      try cut(part, to: 0)
      throw .again(reason: "the server sent another range than asked for")
    case 416 where offset > 0 && range?.total == offset:
      return true
    case 416:
      try cut(part, to: 0)
      throw .again(reason: "the server refused the range")
    default:
      if offset > 0 { try cut(part, to: 0) }
      return false
    }
  }

  /// Keeps the first `bytes` bytes of the part, or throws away all of it and its `ETag`.
  private func cut(_ part: borrowing PartFile, to bytes: Int) throws(TryError) {
    do {
      if bytes == 0 { try part.discard() } else { try part.truncate(to: bytes) }
    } catch {
      throw .final(error)
    }
  }

  /// The size of the whole file, on which the manifest, the hub and the server must agree.
  private func expectedSize(of file: HubFile, _ answer: HubAnswer) throws(TryError) -> Int? {
    let name = file.url.lastPathComponent
    var declared: Int?
    switch answer.response.status.code {
    case 200: declared = answer.response.headers.first(name: "content-length").flatMap(Int.init)
    default: declared = contentRange(answer.response)?.total
    }
    var known = file.bytes
    for found in [answer.linkedSize, declared] {
      guard let found else { continue }
      if let known, known != found {
        throw .final(
          .wrongSize(name, expected: known, found: found, place: "offered by \(answer.url.host ?? "")"))
      }
      known = found
    }
    if let expected = file.sha256, let found = answer.sha256, expected != found {
      throw .final(
        .checksumMismatch(
          name, expected: expected, found: found, place: "offered by \(answer.url.host ?? "")"))
    }
    return known
  }

  /// The `ETag`, where it is one that can vouch for a range.
  private func strongETag(_ response: HTTPClientResponse) -> String? {
    response.headers.first(name: "etag").flatMap { $0.hasPrefix("\"") && $0.utf8.count < 512 ? $0 : nil }
  }

  /// Start (206 only) and total of a `Content-Range`: `bytes 0-9/10`, `bytes 0-9/*` or `bytes */10`.
  private func contentRange(_ response: HTTPClientResponse) -> (start: Int?, total: Int?)? {
    guard let text = response.headers.first(name: "content-range"), text.hasPrefix("bytes ") else {
      return nil
    }
    let halves = text.dropFirst(6).split(separator: "/")
    guard halves.count == 2 else { return nil }
    let start = halves[0].split(separator: "-").first.flatMap { Int($0) }
    return (start, Int(halves[1]))
  }
}
