// swift-tools-version: 6.1
// Micro-benchmarks, in a package of their own so that no user of Kindred has to resolve what they need:
// `swift package benchmark`, here.
import PackageDescription

let package = Package(
  name: "kindred-benchmarks",
  platforms: [.macOS(.v15)],
  dependencies: [
    .package(name: "kindred", path: ".."),
    // Its traits count allocations by replacing malloc, which these measurements do not need.
    .package(url: "https://github.com/ordo-one/benchmark", from: "1.38.0", traits: []),
  ],
  targets: [
    .target(name: "CCeilings", path: "Ceilings"),
    // The plugin looks for targets in folders of this name's parent, `Benchmarks`.
    .executableTarget(
      name: "Kernels",
      dependencies: [
        // The umbrella would bring the model store, and with it a network client to build.
        "CCeilings", .product(name: "KindredEvaluation", package: "kindred"),
        .product(name: "Benchmark", package: "benchmark"),
      ],
      path: "Kernels", plugins: [.plugin(name: "BenchmarkPlugin", package: "benchmark")]),
  ],
  swiftLanguageModes: [.v6],
  cLanguageStandard: .c11
)
