// The model store: a folder of verified model files, found by name.
//
//     <root>/models/<name>/<file>.gguf          models of the manifest
//     <root>/models/OWNER/REPO/<file>           models of the hub

import Foundation

/// A folder of verified model files.
public struct ModelStore: Sendable {
  /// The store's folder: `KINDRED_HOME`, or `~/.cache/kindred`.
  public let root: String
  /// The models that are known by name.
  public let manifest: ModelManifest

  /// Opens a store; nothing is created until something is fetched.
  ///
  /// - Parameters:
  ///   - root: the store's folder; nil means `KINDRED_HOME`, or `~/.cache/kindred`
  ///   - environment: where `KINDRED_HOME` and `HOME` are read
  public init(
    root: String? = nil, environment: [String: String] = ProcessInfo.processInfo.environment
  ) {
    self.init(root: root, environment: environment, manifest: .standard)
  }

  package init(
    root: String? = nil, environment: [String: String] = ProcessInfo.processInfo.environment,
    manifest: ModelManifest
  ) {
    let chosen = [root, environment["KINDRED_HOME"]].compactMap { $0 }.first { !$0.isEmpty }
    let home = environment["HOME"] ?? FileManager.default.homeDirectoryForCurrentUser.path
    self.root = URL(fileURLWithPath: chosen ?? "\(home)/.cache/kindred").path
    self.manifest = manifest
  }

  /// The file of a fetched manifest model.
  ///
  /// - Throws: ``ModelStoreError/notFetched(_:path:)`` where it is not there with its full size, and
  ///   ``ModelStoreError/unknownModel(_:known:)`` or ``ModelStoreError/ambiguousName(_:members:)``.
  public func path(of name: String) throws(ModelStoreError) -> String {
    let models = manifest.models(named: name)
    guard let model = models.first else { throw .unknownModel(name, known: manifest.knownNames) }
    guard models.count == 1 else { throw .ambiguousName(name, members: models.map(\.name)) }
    let path = location(of: model)
    guard fileSize(path) == model.bytes else { throw .notFetched(name, path: path) }
    return path
  }

  /// What a model argument of the command line stands for: an existing file or folder, a manifest name, or
  /// an `hf:OWNER/REPO[:FILE]` that has been fetched.
  ///
  /// - Returns: the path of a file, or of a folder with `config.json` and weights.
  public func locate(_ argument: String) throws(ModelStoreError) -> String {
    if !argument.isEmpty, FileManager.default.fileExists(atPath: argument) { return argument }
    guard let reference = try HubReference(argument) else { return try path(of: argument) }
    let folder = location(of: reference.repository)
    if let file = reference.file {
      let path = "\(folder)/\(file)"
      guard fileSize(path) != nil else { throw .notFetched(argument, path: path) }
      return path
    }
    if fileSize("\(folder)/config.json") != nil { return folder }
    let files = ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).sorted()
    let models = files.filter { $0.lowercased().hasSuffix(".gguf") }
    guard let model = models.first else { throw .notFetched(argument, path: folder) }
    guard models.count == 1 else {
      throw .severalModelsInRepository(reference.repository, files: models)
    }
    return "\(folder)/\(model)"
  }

  /// Where the file of a manifest model stands or will stand.
  public func location(of model: ManifestModel) -> String { "\(root)/models/\(model.name)/\(model.file)" }

  /// Where the files of a hub repository stand or will stand.
  func location(of repository: String) -> String { "\(root)/models/\(repository)" }

  /// The size of a regular file in bytes; nil where there is none.
  func fileSize(_ path: String) -> Int? {
    var info = stat()
    guard stat(path, &info) == 0, info.st_mode & S_IFMT == S_IFREG else { return nil }
    return Int(info.st_size)
  }
}
