// What a user may name: a model of the manifest, or a repository or file on the Hugging Face hub.
//
// Names reach this file from the command line and from the hub's listing. Both end up as paths below the
// store's root, so both are checked here, component by component, before anything is opened.

/// A repository on the Hugging Face hub, and perhaps one of its files: `hf:OWNER/REPO[:FILE]`.
public struct HubReference: Sendable, Equatable {
  /// The repository as `OWNER/REPO`.
  public let repository: String
  /// The path of a file inside the repository; nil means: find out what is there.
  public let file: String?

  /// Reads `hf:OWNER/REPO[:FILE]`.
  ///
  /// - Returns: nil where the text does not start with `hf:`.
  /// - Throws: ``ModelStoreError/invalidReference(_:)`` where the rest is not a repository and file.
  public init?(_ text: String) throws(ModelStoreError) {
    guard text.hasPrefix("hf:") else { return nil }
    let parts = text.dropFirst(3).split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
    let names = parts[0].split(separator: "/", omittingEmptySubsequences: false)
    guard names.count == 2, names.allSatisfy(Self.isRepositoryName) else {
      throw .invalidReference(text)
    }
    repository = String(parts[0])
    file = parts.count == 2 ? String(parts[1]) : nil
    if let file, !isSafeRelativePath(file) { throw .invalidReference(text) }
  }

  /// Whether a text can be an owner or a repository: the hub's own alphabet, and no dot first, so that it
  /// is neither `..` nor hidden.
  private static func isRepositoryName(_ name: Substring) -> Bool {
    !name.isEmpty && name.utf8.count <= 96 && name.first != "."
      && name.utf8.allSatisfy { byte in
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
          UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."):
          true
        default: false
        }
      }
  }
}

/// Whether a path from outside stays below the folder that it is appended to, and cannot be taken for one of
/// the store's own part files.
package func isSafeRelativePath(_ path: String) -> Bool {
  let components = path.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
  guard path.utf8.count <= 1024, !PartFile.isReserved(path) else { return false }
  return components.allSatisfy { component in
    !component.isEmpty && component.count <= 200 && component.first != UInt8(ascii: ".")
      && component.allSatisfy { $0 >= 0x20 && $0 != 0x7F && $0 != UInt8(ascii: "\\") }
  }
}
