// Opening a model by its path, whatever its format.

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// A model on disk, in one of the formats that this package reads.
public enum ModelFile: Sendable {
  case gguf(GGUFFile)
  case huggingFace(HuggingFaceFolder)
  /// Weights alone, without the configuration that makes them a model.
  case safetensors(SafetensorsFile)

  /// Opens what is at `path`: a folder with `config.json`, a GGUF file, or a `.safetensors` file.
  public init(path: String) throws(ModelFileError) {
    if FolderListing(path: path).isFolder {
      self = .huggingFace(try HuggingFaceFolder(path: path))
      return
    }
    let file = try MappedFile(path: path)
    self =
      path.hasSuffix(".safetensors")
      ? .safetensors(try SafetensorsFile(file: file)) : .gguf(try GGUFFile(file: file))
  }

  /// The model's tensors.
  public var tensors: any TensorContainer {
    switch self {
    case .gguf(let file): file
    case .huggingFace(let folder): folder
    case .safetensors(let file): file
    }
  }
}

/// Asks what is in a folder.
struct FolderListing {
  let path: String

  var isFolder: Bool { Self.mode(of: path) == S_IFDIR }

  func path(of name: String) -> String { path.hasSuffix("/") ? path + name : "\(path)/\(name)" }

  func pathIfPresent(_ name: String) -> String? { contains(name) ? path(of: name) : nil }

  func contains(_ name: String) -> Bool { Self.mode(of: path(of: name)) != nil }

  /// The kind of file at `path`, or `nil` where there is none.
  private static func mode(of path: String) -> mode_t? {
    var status = stat()
    return stat(path, &status) == 0 ? status.st_mode & S_IFMT : nil
  }
}
