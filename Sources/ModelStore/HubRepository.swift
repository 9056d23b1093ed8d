// Finds out which files of a hub repository make a model.

import Foundation
import NIOCore

/// A file that a repository lists.
struct HubListedFile: Decodable {
  let path: String
  /// Size in bytes, where the hub gives it.
  let bytes: Int?
  /// SHA-256, given for large files only.
  let sha256: String?

  private enum Keys: String, CodingKey { case rfilename, size, lfs }
  private struct LargeFile: Decodable { let sha256: String? }

  init(from decoder: any Decoder) throws {
    let fields = try decoder.container(keyedBy: Keys.self)
    path = try fields.decode(String.self, forKey: .rfilename)
    // Mirrors leave these out or give them other shapes; they are a help, not a need.
    let size = try? fields.decode(Int.self, forKey: .size)
    bytes = size.flatMap { $0 >= 0 ? $0 : nil }
    let sum = (try? fields.decode(LargeFile.self, forKey: .lfs))?.sha256?.lowercased()
    sha256 = sum.flatMap { $0.utf8.count == 64 && $0.allSatisfy(\.isHexDigit) ? $0 : nil }
  }
}

extension HubClient {
  private struct Listing: Decodable { let siblings: [HubListedFile] }

  /// The files that a reference stands for, in the order in which they are to be fetched.
  func files(of reference: HubReference) async throws(ModelStoreError) -> [HubListedFile] {
    let listed = try await list(reference.repository)
    let chosen = try Self.choose(from: listed, reference)
    for file in chosen where !isSafeRelativePath(file.path) {
      throw .unsafeFileName(file.path, repository: reference.repository)
    }
    return chosen
  }

  private func list(_ repository: String) async throws(ModelStoreError) -> [HubListedFile] {
    let url = try listingURL(repository: repository)
    let body = try await repeating(
      url, position: { 0 },
      body: { () async throws(TryError) -> ByteBuffer in
        let answer = try await get(url)
        guard answer.response.status == .ok else {
          throw .final(.httpStatus(url: url.absoluteString, status: Int(answer.response.status.code)))
        }
        do {
          return try await answer.response.body.collect(upTo: 32 << 20)
        } catch {
          throw Self.tryError(error, host: url.host ?? "")
        }
      })
    do {
      return try JSONDecoder().decode(Listing.self, from: Data(body.readableBytesView)).siblings
    } catch {
      throw .malformedAnswer(url: url.absoluteString, reason: "expected JSON with the files of a repository")
    }
  }

  /// The named file; or the one GGUF file; or weights, tokenizer and configuration of a folder, of which
  /// `config.json` comes last: a folder that has it is complete.
  private static func choose(
    from listed: [HubListedFile], _ reference: HubReference
  ) throws(ModelStoreError) -> [HubListedFile] {
    let repository = reference.repository
    if let file = reference.file {
      let found = listed.filter { $0.path == file }
      guard !found.isEmpty else { throw .noSuchFileInRepository(repository, file: file) }
      return [found[0]]
    }
    let models = listed.filter { $0.path.lowercased().hasSuffix(".gguf") }
    if models.count == 1 { return models }
    guard models.isEmpty else {
      throw .severalModelsInRepository(repository, files: models.map(\.path))
    }
    let top = listed.filter { !$0.path.contains("/") }
    let tensors = top.filter { $0.path.hasSuffix(".safetensors") }
    // Some repositories hold the weights twice, as `model-*` and in their maker's own `consolidated*`.
    let standard = tensors.filter { $0.path.hasPrefix("model") }
    let small = smallFiles.compactMap { name in top.first { $0.path == name } }
    guard !tensors.isEmpty, small.last?.path == smallFiles.last else {
      throw .noModelInRepository(repository)
    }
    return (standard.isEmpty ? tensors : standard) + small
  }

  private static let smallFiles = [
    "model.safetensors.index.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja",
    "chat_template.json", "generation_config.json", "config.json",
  ]
}
