// Sessions whose keys and values are stored in blocks: against a slow twin that rounds by definition, and what they
// take of memory. The models are random, with heads of 32 elements.

import Foundation
import KindredAttention
import KindredAttentionMapping
import KindredCompute
import KindredGeneration
import KindredTransformer
import Testing

/// A pair with the layers and heads that ``NamedPlan`` expects, in folders of its own.
final class BlockPair {
  let folder: URL
  let large: DecoderModel<CPUBackend>
  let small: DecoderModel<CPUBackend>

  init() throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("kindred-\(UUID().uuidString)")
    self.folder = folder
    let backend = try CPUBackend(threads: 2)
    func make(_ name: String, hidden: Int, heads: Int, layers: Int, seed: UInt64) throws -> DecoderModel<CPUBackend> {
      let path = folder.appendingPathComponent(name)
      try RandomFolder(hidden: hidden, heads: heads, layers: layers, seed: seed).write(to: path)
      return try DecoderModel(OpenedModel(path: path.path), backend: backend)
    }
    large = try make("large", hidden: 192, heads: 6, layers: 3, seed: 1)
    small = try make("small", hidden: 128, heads: 4, layers: 2, seed: 2)
  }

  deinit { try? FileManager.default.removeItem(at: folder) }

  func session(
    _ mapping: Session<CPUBackend>.Mapping?, kvType: KVType, smallKVType: KVType? = nil, chunk: Int = 512
  ) throws -> Session<CPUBackend> {
    var options = Session<CPUBackend>.Options()
    options.kvType = kvType
    options.smallKVType = smallKVType
    options.chunkRows = chunk
    return try Session(decoder: large, mapping: mapping, options: options)
  }

  func recipe(_ layers: LayerSelection) -> Session<CPUBackend>.Mapping {
    .established(small: small, recipe: PaperRecipe(layers: layers))
  }

  func logits(_ session: Session<CPUBackend>, _ tokens: [Int32]) throws -> [Double] {
    var all: [Double] = []
    try session.append(tokens) { _, logits in all += logits.map(Double.init) }
    return all
  }
}

/// A Qwen2 model of random weights as a Hugging Face folder, with 2 KV heads.
struct RandomFolder {
  let hidden: Int, heads: Int, layers: Int
  let seed: UInt64

  func write(to folder: URL) throws {
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    let configuration: [String: Any] = [
      "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", "hidden_size": hidden,
      "intermediate_size": 40, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": 2,
      "vocab_size": 101, "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
      "tie_word_embeddings": false, "torch_dtype": "float32",
    ]
    try JSONSerialization.data(withJSONObject: configuration).write(to: folder.appendingPathComponent("config.json"))
    var header: [String: Any] = [:]
    var data = Data()
    var state = seed
    for (name, shape) in shapes.sorted(by: { $0.key < $1.key }) {
      let start = data.count
      for _ in 0..<shape.reduce(1, *) {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        let noise = Float(Int64(bitPattern: state) >> 40) / Float(1 << 23) * 1.7
        let gain: Float = name.contains("q_proj") || name.contains("k_proj") ? 1.6 : 1
        let value: Float =
          if name.hasSuffix("norm.weight") { 1 + 0.2 * noise } else if shape.count == 1 { 0.3 * noise } else {
            gain * noise / Float(name.hasPrefix("model.embed") ? 1 : shape[1]).squareRoot()
          }
        withUnsafeBytes(of: value) { data.append(contentsOf: $0) }
      }
      header[name] = ["dtype": "F32", "shape": shape, "data_offsets": [start, data.count]]
    }
    var text = try JSONSerialization.data(withJSONObject: header)
    text += Data(repeating: 0x20, count: (8 - text.count % 8) % 8)
    let length = withUnsafeBytes(of: UInt64(text.count).littleEndian) { Data($0) }
    try (length + text + data).write(to: folder.appendingPathComponent("model.safetensors"))
  }

  private var shapes: [String: [Int]] {
    var shapes = [
      "model.embed_tokens.weight": [101, hidden], "model.norm.weight": [hidden], "lm_head.weight": [101, hidden],
    ]
    let keys = 2 * hidden / heads
    for layer in 0..<layers {
      let ofLayer = [
        "input_layernorm.weight": [hidden], "post_attention_layernorm.weight": [hidden],
        "self_attn.q_proj.weight": [hidden, hidden], "self_attn.q_proj.bias": [hidden],
        "self_attn.k_proj.weight": [keys, hidden], "self_attn.k_proj.bias": [keys],
        "self_attn.v_proj.weight": [keys, hidden], "self_attn.v_proj.bias": [keys],
        "self_attn.o_proj.weight": [hidden, hidden], "mlp.gate_proj.weight": [40, hidden],
        "mlp.up_proj.weight": [40, hidden], "mlp.down_proj.weight": [hidden, 40],
      ]
      for (name, shape) in ofLayer { shapes["model.layers.\(layer).\(name)"] = shape }
    }
    return shapes
  }
}

@Suite struct CacheTypeTests {
  let pair: BlockPair
  let tokens = (0..<150).map { Int32($0 * $0 * 7 % 101) }

  init() throws { pair = try BlockPair() }

  /// What a type of blocks leaves of a row, by definition.
  static func rounded(_ row: [Double], to type: KVType) -> [Double] {
    stride(from: 0, to: row.count, by: 32).flatMap { start -> [Double] in
      let block = row[start..<start + 32]
      let largest = block.max { abs($0) < abs($1) } ?? 0
      let exact = type == .q8_0 ? abs(largest) / 127 : largest / -8
      guard exact != 0 else { return Array(block) }
      // A half-precision number has 11 bits.
      let unit = exact.ulp * 0x1p42
      let scale = (exact / unit).rounded() * unit
      return block.map { scale * (type == .q8_0 ? ($0 / exact).rounded() : min(7, ($0 / exact + 0.5).rounded(.down))) }
    }
  }

  /// Root of the mean square difference.
  func distance(_ a: [Double], _ b: [Double]) -> Double {
    guard a.count == b.count else { return .infinity }
    return (zip(a, b).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) } / Double(a.count)).squareRoot()
  }

  /// Chunks of few rows, whose attention is as exact as the cache.
  @Test(arguments: [KVType.q8_0, .q4_0], [NamedPlan("no plan", [])] + NamedPlan.all)
  func agreesWithATwinThatRounds(type: KVType, named: NamedPlan) throws {
    let large = try SlowDecoder(folder: pair.folder.appendingPathComponent("large"))
    let small = try SlowDecoder(folder: pair.folder.appendingPathComponent("small"))
    let plan = named.plan.units.isEmpty ? nil : named.plan
    func twin(_ stored: ([Double]) -> [Double]) -> [Double] {
      let lent = plan == nil ? [] : small.run(tokens, stored: stored).maps
      return Array(large.run(tokens, plan: plan, lent: lent, stored: stored).logits.joined())
    }
    let exact = twin { $0 }
    let rounded = twin { Self.rounded($0, to: type) }
    let mapping = plan.map { Session<CPUBackend>.Mapping.planned(small: pair.small, plan: $0) }
    let found = try pair.logits(try pair.session(mapping, kvType: type, chunk: 7), tokens)
    // A number that lies between two quants may fall to either side, which moves later ones.
    let noise = distance(rounded, exact)
    #expect(distance(found, rounded) < 0.3 * noise, "\(distance(found, rounded)) of \(noise)")
    #expect(noise < (type == .q8_0 ? 0.02 : 0.4))
    let inOneChunk = try pair.logits(try pair.session(mapping, kvType: type), tokens)
    #expect(distance(inOneChunk, exact) < 1.3 * noise, "\(distance(inOneChunk, exact)) of \(noise)")
  }

  @Test(arguments: KVType.allCases)
  func ratioZeroIsTheUnmappedModelBitForBit(type: KVType) throws {
    let alone = try pair.session(nil, kvType: type)
    let unmapped = try pair.session(pair.recipe(.back(ratio: 0)), kvType: type, smallKVType: .q4_0)
    #expect(try pair.logits(alone, tokens) == pair.logits(unmapped, tokens))
    #expect(unmapped.kvBytes == alone.kvBytes && unmapped.kvBytes.small == 0)
  }

  @Test func onlyTheSmallModelsBytesChange() throws {
    let mapping = Session<CPUBackend>.Mapping.planned(small: pair.small, plan: NamedPlan.all[0].plan)
    func run(_ smallKVType: KVType?) throws -> (kv: KVBytes, logits: [Double]) {
      let session = try pair.session(mapping, kvType: .f16, smallKVType: smallKVType)
      let logits = try pair.logits(session, tokens)
      return (session.kvBytes, logits)
    }
    let plain = try run(nil)
    // 3 pages of 64 positions of 32 elements of 2 bytes. One of 6 units of the large model drops its keys; of the small
    // model's last layer only the first KV head is used.
    let page = 3 * 64 * 32 * 2
    #expect(plain.kv.large == 11 * page && plain.kv.small == 6 * page && plain.kv.unmapped == 12 * page)
    for (type, bytes, limit) in [(KVType.f32, 128, 0.01), (.q8_0, 34, 0.02), (.q4_0, 18, 0.4)] {
      let found = try run(type)
      #expect(found.kv.small == 6 * page / 64 * bytes, "\(type)")
      #expect(found.kv.large == plain.kv.large && found.kv.unmapped == plain.kv.unmapped)
      #expect(distance(found.logits, plain.logits) < limit, "\(type): \(distance(found.logits, plain.logits))")
      #expect(found.logits != plain.logits)
    }
  }

  /// The tiny pair's heads have 8 and 16 elements.
  @Test func headsThatFillNoBlockAreRefused() throws {
    let tiny = try TinyPair()
    #expect(throws: ComputeError.headDimension(type: .q8_0, found: 8)) { try tiny.session(nil, kvType: .q8_0) }
    #expect(throws: ComputeError.headDimension(type: .q4_0, found: 16)) {
      try ModelPair(
        largeAt: TinyPair.folder("large").path, smallAt: TinyPair.folder("small").path, smallKVType: .q4_0)
    }
  }
}
