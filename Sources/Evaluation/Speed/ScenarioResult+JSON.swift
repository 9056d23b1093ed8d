// A scenario's result as JSON, written by the command line and read by the report:
//
//   {"name": …, "scale": 0.25, "sequences": 16, "prompt_tokens": 128, "generate_tokens": 128, "ratio": 0.5,
//    "repeat": 3, "layers": 4, "published_layers": 80, "mapped_layer_count": 2, "small_share": 0.05,
//    "unmapped": {"ttft_seconds": {"median": …, "minimum": …, "maximum": …}, …}, "mapped": {…}, "gain": {…}}

import KindredModelFiles

extension ScenarioResult: Encodable {
  private enum CodingKeys: String, CodingKey {
    case name, scale, sequences, ratio, layers, unmapped, mapped, gain
    case promptTokens = "prompt_tokens"
    case generatedTokens = "generate_tokens"
    case repeats = "repeat"
    case publishedLayers = "published_layers"
    case mappedLayerCount = "mapped_layer_count"
    case smallShare = "small_share"
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(scenario.name, forKey: .name)
    try container.encode(scenario.scale, forKey: .scale)
    try container.encode(scenario.sequences, forKey: .sequences)
    try container.encode(scenario.promptTokens, forKey: .promptTokens)
    try container.encode(scenario.generatedTokens, forKey: .generatedTokens)
    try container.encodeIfPresent(scenario.ratio, forKey: .ratio)
    try container.encode(repeats, forKey: .repeats)
    try container.encode(layerCount, forKey: .layers)
    try container.encode(publishedLayerCount, forKey: .publishedLayers)
    try container.encode(mappedLayerCount, forKey: .mappedLayerCount)
    try container.encode(smallShare, forKey: .smallShare)
    try container.encode(unmapped, forKey: .unmapped)
    try container.encodeIfPresent(mapped, forKey: .mapped)
    try container.encodeIfPresent(gain, forKey: .gain)
  }

  /// - Throws: `ModelFileError` that says what is wrong with the file, and where.
  init(_ node: JSONNode) throws(ModelFileError) {
    let size = 1...1 << 30
    var scenario = Scenario(
      name: try node.string("name"), sequences: try node.integer("sequences", in: size),
      promptTokens: try node.integer("prompt_tokens", in: size),
      generatedTokens: try node.integer("generate_tokens", in: size))
    scenario.ratio = try node.doubleIfPresent("ratio")
    scenario.scale = try node.double("scale")
    let layers = try node.integer("layers", in: 1...100_000)
    self.init(
      scenario: scenario, repeats: try node.integer("repeat", in: size), layerCount: layers,
      publishedLayerCount: try node.integer("published_layers", in: layers...100_000),
      mappedLayerCount: try node.integer("mapped_layer_count", in: 0...layers),
      unmapped: try Figures(node.child("unmapped")),
      mapped: node.value("mapped") == nil ? nil : try Figures(node.child("mapped")),
      gain: node.value("gain") == nil ? nil : try Gain(node.child("gain")))
  }
}

extension ScenarioResult.Figures {
  init(_ node: JSONNode) throws(ModelFileError) {
    // As many as a number in JSON holds exactly.
    let bytes = 0...1 << 53
    self.init(
      ttftSeconds: try MedianAndRange(node.child("ttft_seconds")),
      firstTTFTSeconds: try MedianAndRange(node.child("first_ttft_seconds")),
      tpotSeconds: try MedianAndRange(node.child("tpot_seconds")),
      smallTTFTSeconds: try node.double("small_ttft_seconds"),
      smallTPOTSeconds: try node.double("small_tpot_seconds"),
      tokensPerSecond: try MedianAndRange(node.child("tokens_per_second")),
      generatedTokensPerSecond: try MedianAndRange(node.child("generated_tokens_per_second")),
      kvBytesLarge: try node.integer("kv_bytes_large", in: bytes),
      kvBytesSmall: try node.integer("kv_bytes_small", in: bytes),
      peakRSSBytes: try node.integerIfPresent("peak_rss_bytes", in: bytes))
  }
}

extension ScenarioResult.Gain {
  init(_ node: JSONNode) throws(ModelFileError) {
    self.init(
      ttft: try MedianAndRange(node.child("ttft")), tpot: try MedianAndRange(node.child("tpot")),
      throughput: try MedianAndRange(node.child("throughput")))
  }
}

extension MedianAndRange {
  init(_ node: JSONNode) throws(ModelFileError) {
    self.init(
      median: try node.double("median"), minimum: try node.double("minimum"), maximum: try node.double("maximum"))
  }
}
