// Everything that can go wrong in the model store, each as one line that a user can act on.

/// An error of the model store.
public enum ModelStoreError: Error, Equatable, Sendable {
  /// Neither a file, a folder nor a known name.
  case unknownModel(String, known: [String])
  /// A group where one model is needed.
  case ambiguousName(String, members: [String])
  /// A known model that is not in the store.
  case notFetched(String, path: String)
  /// A malformed `hf:OWNER/REPO[:FILE]`.
  case invalidReference(String)
  /// A file name from the network that would leave its folder or cannot be a file name.
  case unsafeFileName(String, repository: String)
  /// A repository without a GGUF file and without `config.json` and safetensors.
  case noModelInRepository(String)
  /// A repository with several GGUF files, of which the user must name one.
  case severalModelsInRepository(String, files: [String])
  /// A file that the repository does not list.
  case noSuchFileInRepository(String, file: String)
  /// A manifest model that has no source of the wanted kind.
  case noSuchSource(String, wanted: [String])
  /// No connection could be made at all.
  case unreachable(host: String, reason: String)
  /// The hub asks for a token, or for another one.
  case unauthorized(url: String, status: Int, hasToken: Bool)
  /// An answer that no repetition will better.
  case httpStatus(url: String, status: Int)
  /// A transfer that failed too often without getting on.
  case transferFailed(url: String, attempts: Int, reason: String)
  /// An answer that breaks the protocol.
  case malformedAnswer(url: String, reason: String)
  /// A file of another size than it should have.
  case wrongSize(String, expected: Int, found: Int, place: String)
  /// A file with other bytes than it should have.
  case checksumMismatch(String, expected: String, found: String, place: String)
  /// Too little room on the disk, found before anything was written.
  case insufficientDisk(path: String, needed: Int, available: Int)
  /// The disk ran full while writing; `kept` bytes wait in the part file.
  case diskFull(path: String, kept: Int)
  /// Another process holds the part file.
  case locked(path: String)
  /// A failed system call on a file.
  case fileSystem(operation: String, path: String, reason: String)
  /// Python or pip is missing or failed.
  case python(String)
  /// Every source failed, each with its own line.
  case allSourcesFailed(String, reasons: [String])
  /// The surrounding task was cancelled.
  case cancelled
}

extension ModelStoreError: CustomStringConvertible {
  /// One line: what was expected, what was found, and where.
  public var description: String {
    switch self {
    case .unknownModel(let name, let known):
      "no file, folder or known model '\(name)'; known models: \(known.joined(separator: ", "))"
    case .ambiguousName(let name, let members):
      "'\(name)' stands for several models; name one of: \(members.joined(separator: ", "))"
    case .notFetched(let name, let path):
      "model '\(name)' is not in the store (expected \(path)); run: kindred fetch \(name)"
    case .invalidReference(let text):
      "expected hf:OWNER/REPO or hf:OWNER/REPO:FILE, found '\(oneLine(text))'"
    case .unsafeFileName(let name, let repository):
      "repository \(repository) offers a file named '\(oneLine(name))', which is not a safe file name"
    case .noModelInRepository(let repository):
      "repository \(repository) has neither a GGUF file nor config.json with safetensors files"
    case .severalModelsInRepository(let repository, let files):
      "repository \(repository) has \(files.count) GGUF files; name one as hf:\(repository):FILE, "
        + "FILE being one of: \(files.map(oneLine).joined(separator: ", "))"
    case .noSuchFileInRepository(let repository, let file):
      "repository \(repository) has no file '\(file)'"
    case .noSuchSource(let name, let wanted):
      "model '\(name)' has no source of kind \(wanted.joined(separator: " or "))"
    case .python(let reason):
      reason
    case .allSourcesFailed(let name, let reasons):
      "could not fetch \(name): \(reasons.joined(separator: "; "))"
    case .cancelled:
      "cancelled; what has been downloaded stays for the next try"
    case .unreachable(let host, let reason):
      "cannot connect to \(host): \(oneLine(reason))"
    case .unauthorized(let url, let status, let hasToken):
      "\(url) answered \(status): "
        + (hasToken
          ? "the token in HF_TOKEN has no access (is the model's licence accepted?)"
          : "if the repository exists, set HF_TOKEN to a token that has access")
    case .httpStatus(let url, let status):
      "\(url) answered \(status)" + (status == 404 ? ": no such repository or file" : "")
    case .transferFailed(let url, let attempts, let reason):
      "\(url) failed \(attempts) times without progress, last: \(oneLine(reason))"
    case .malformedAnswer(let url, let reason):
      "\(url) gave an answer that makes no sense: \(oneLine(reason))"
    case .wrongSize(let file, let expected, let found, let place):
      "\(file): expected \(expected) bytes, found \(found) \(place)"
    case .checksumMismatch(let file, let expected, let found, let place):
      "\(file): expected sha256 \(expected), found \(found) \(place)"
    case .insufficientDisk(let path, let needed, let available):
      "not enough room at \(path): \(byteText(needed)) needed, \(byteText(available)) available"
    case .diskFull(let path, let kept):
      "the disk is full at \(path); \(byteText(kept)) are kept, free some room and fetch again to go on"
    case .locked(let path):
      "another process is fetching this file (it holds \(path))"
    case .fileSystem(let operation, let path, let reason):
      "cannot \(operation) \(path): \(reason)"
    }
  }
}

/// A text from outside on one printable line of bounded length.
package func oneLine(_ text: String) -> String {
  let clean = text.unicodeScalars.map { $0.properties.generalCategory == .control ? " " : String($0) }
  return clean.count <= 300 ? clean.joined() : clean.prefix(300).joined() + "…"
}

/// A number of bytes for people, in powers of ten: `491.4 MB`.
public func byteText(_ bytes: Int) -> String {
  guard bytes >= 1000 else { return "\(bytes) B" }
  var value = Double(bytes)
  var unit = 0
  let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"]
  while value >= 999.95, unit + 1 < units.count {
    value /= 1000
    unit += 1
  }
  let tenths = Int((value * 10).rounded())
  return "\(tenths / 10).\(tenths % 10) \(units[unit])"
}
