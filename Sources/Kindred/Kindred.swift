// The umbrella module: one import for a program that generates text.

@_exported import KindredAttentionMapping
@_exported import KindredCompute
@_exported import KindredGeneration
@_exported import KindredModelStore
@_exported import KindredTokenization

/// The version of the library and the tool. It is raised where results change, for they are compared across runs.
public let kindredVersion = "0.1.7"

extension ModelPair {
  /// Loads models by name, as `ModelStore.locate(_:)` finds them: a path, or a model that
  /// `kindred fetch` has put into the store.
  ///
  /// - Parameters:
  ///   - large: the model that generates.
  ///   - small: the model that lends its attention; `nil` to run the large one alone.
  ///   - plan: how attention is borrowed.
  ///   - kvType: the type of stored keys and values.
  ///   - smallKVType: the type of the small model's; `kvType` by default.
  ///   - threads: threads to compute with; one for each physical core by default.
  public convenience init(
    large: String, small: String? = nil, plan: Plan = .paper(ratio: 0.3), kvType: KVType = .f16,
    smallKVType: KVType? = nil, threads: Int? = nil
  ) throws {
    let store = ModelStore()
    try self.init(
      largeAt: store.locate(large), smallAt: small.map { try store.locate($0) }, plan: plan, kvType: kvType,
      smallKVType: smallKVType, threads: threads)
  }
}
