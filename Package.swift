// swift-tools-version: 6.1
import PackageDescription

// Folders carry short names; modules carry the prefix `Kindred`, because target names must be unique in a
// user's whole package graph. Targets stand in import order: each may import only targets above it.

/// A Swift target of this package: `Sources/<name>`, module `Kindred<name>`.
func module(_ name: String, exclude: [String] = [], _ dependencies: [Target.Dependency]) -> Target {
  .target(name: "Kindred\(name)", dependencies: dependencies, path: "Sources/\(name)", exclude: exclude)
}

/// The tests of one module: `Tests/<name>Tests`, with the fixtures beside them and the `scripts` that made these.
func tests(of name: String, scripts: [String] = [], _ dependencies: [Target.Dependency]) -> Target {
  .testTarget(
    name: "Kindred\(name)Tests", dependencies: dependencies, path: "Tests/\(name)Tests", exclude: scripts,
    resources: scripts.isEmpty ? [] : [.copy("Fixtures")])
}

let package = Package(
  name: "kindred",
  platforms: [.macOS(.v15)],
  products: [
    .library(name: "Kindred", targets: ["Kindred"]),
    .library(name: "KindredModelStore", targets: ["KindredModelStore"]),
    .library(name: "KindredEvaluation", targets: ["KindredEvaluation"]),
    .executable(name: "kindred", targets: ["KindredCLI"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
    .package(url: "https://github.com/apple/swift-crypto", from: "4.5.0"),
    .package(url: "https://github.com/apple/swift-nio", from: "2.100.0"),
    .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
    .package(url: "https://github.com/swiftlang/swift-docc-plugin", from: "1.5.0"),
  ],
  targets: [
    .target(name: "CKindredKernels", path: "Sources/CKernels"),
    module("Compute", ["CKindredKernels"]),
    module("ModelFiles", ["KindredCompute"]),
    module(
      "ModelStore",
      [
        .product(name: "AsyncHTTPClient", package: "async-http-client"),
        .product(name: "Crypto", package: "swift-crypto"),
        .product(name: "NIOHTTP1", package: "swift-nio"),
        .product(name: "NIOPosix", package: "swift-nio"),
      ]),
    .systemLibrary(
      name: "CPCRE2", path: "Sources/CPCRE2", pkgConfig: "libpcre2-8", providers: [.apt(["libpcre2-dev"])]),
    module(
      "Tokenization", exclude: ["make_unicode_classes.py", "make_normal_form.py"],
      ["KindredModelFiles", "CPCRE2"]),
    module("KVStore", ["KindredCompute"]),
    module("Attention", ["KindredKVStore"]),
    module("Transformer", ["KindredAttention", "KindredModelFiles"]),
    module("AttentionMapping", ["KindredTransformer"]),
    module("Generation", ["KindredAttentionMapping", "KindredTokenization"]),
    .systemLibrary(name: "CZlib", path: "Sources/CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
    .target(name: "CKindredSandbox", path: "Sources/CSandbox"),
    module("Evaluation", ["KindredGeneration", "KindredModelFiles", "CKindredSandbox", "CZlib"]),
    .target(
      name: "Kindred", dependencies: ["KindredGeneration", "KindredModelStore"], path: "Sources/Kindred"),
    .executableTarget(
      name: "KindredCLI",
      dependencies: [
        "Kindred", "KindredModelFiles", "KindredModelStore", "KindredEvaluation",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ],
      path: "Sources/CLI"),
    .executableTarget(
      name: "KindredTokenizerTimer", dependencies: ["KindredTokenization"], path: "Benchmarks/peer/tokenizer"),
    tests(of: "CKernels", scripts: ["make_fixtures.py"], ["CKindredKernels"]),
    tests(
      of: "ModelStore",
      [
        "KindredModelStore",
        .product(name: "Crypto", package: "swift-crypto"),
        .product(name: "NIOHTTP1", package: "swift-nio"),
        .product(name: "NIOPosix", package: "swift-nio"),
      ]),
    tests(of: "Compute", ["KindredCompute"]),
    tests(of: "ModelFiles", scripts: ["make_fixtures.py"], ["KindredModelFiles"]),
    tests(
      of: "Tokenization", scripts: ["make_words.py", "make_chat.py", "make_tokenizers.py"],
      ["KindredTokenization", "KindredModelStore"]),
    tests(of: "KVStore", ["KindredKVStore"]),
    tests(of: "Attention", ["KindredAttention"]),
    tests(of: "Generation", scripts: ["make_references.py"], ["KindredGeneration", "KindredModelStore"]),
    tests(of: "Evaluation", scripts: ["make_metrics.py", "make_mmlu.py"], ["KindredEvaluation", "KindredModelStore"]),
    tests(of: "CLI", ["KindredCLI"]),
    .testTarget(name: "KindredTests", dependencies: ["Kindred"], path: "Tests/KindredTests"),
    tests(of: "Transformer", scripts: ["make_fixtures.py"], ["KindredTransformer"]),
    tests(
      of: "AttentionMapping", scripts: ["make_fixtures.py", "make_similarities.py"], ["KindredAttentionMapping"]),
  ],
  swiftLanguageModes: [.v6],
  cLanguageStandard: .c11
)
