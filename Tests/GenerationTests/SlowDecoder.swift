// A decoder that materialises every attention map, in double precision and straight from the equations: the slow twin
// of sessions that run by a plan. Unmapped it is checked against the engine, which is checked against `transformers`.

import Foundation
import KindredAttention
import KindredCompute

/// A Qwen2 model read from a Hugging Face folder with one F32 safetensors file.
struct SlowDecoder {
  struct Configuration: Decodable {
    let hiddenSize: Int
    let numHiddenLayers: Int
    let numAttentionHeads: Int
    let numKeyValueHeads: Int
    let rmsNormEps: Double
    let ropeTheta: Double
    let tieWordEmbeddings: Bool
  }

  /// Post-softmax rows `[layer][head][row][position]`.
  typealias Maps = [[[[Double]]]]

  let configuration: Configuration
  private let weights: [String: [Double]]

  init(folder: URL) throws {
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    configuration = try decoder.decode(
      Configuration.self, from: Data(contentsOf: folder.appendingPathComponent("config.json")))
    let file = try Data(contentsOf: folder.appendingPathComponent("model.safetensors"))
    let headerBytes = file.prefix(8).enumerated().reduce(0) { $0 + Int($1.element) << (8 * $1.offset) }
    let header = try JSONSerialization.jsonObject(with: file[8..<8 + headerBytes]) as? [String: Any] ?? [:]
    weights = header.compactMapValues { entry in
      guard let range = (entry as? [String: Any])?["data_offsets"] as? [Int] else { return nil }
      return file[8 + headerBytes + range[0]..<8 + headerBytes + range[1]].withUnsafeBytes { bytes in
        (0..<bytes.count / 4).map { Double(bytes.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self)) }
      }
    }
  }

  /// Runs tokens by a plan.
  ///
  /// - Parameters:
  ///   - tokens: a sequence from its first position on.
  ///   - plan: where attention comes from; `nil` for ordinary attention.
  ///   - lent: the small model's maps.
  ///   - stored: what rounding leaves of a row's keys, or values, of all KV heads.
  /// - Returns: logits `[rows][vocabulary]` and the maps that were used.
  func run(
    _ tokens: [Int32], plan: AttentionPlan? = nil, lent: Maps = [], stored: ([Double]) -> [Double] = { $0 }
  ) -> (logits: [[Double]], maps: Maps) {
    let heads = configuration.numAttentionHeads
    let size = configuration.hiddenSize
    let dimension = size / heads
    let groupSize = heads / configuration.numKeyValueHeads
    let embedding = weights["model.embed_tokens.weight"] ?? []
    var hidden = tokens.map { Array(embedding[Int($0) * size..<(Int($0) + 1) * size]) }
    var maps: Maps = []
    for layer in 0..<configuration.numHiddenLayers {
      let name = "model.layers.\(layer)"
      let normal = hidden.map { normalize($0, "\(name).input_layernorm") }
      let query = normal.enumerated().map { rotate(linear($1, "\(name).self_attn.q_proj"), position: $0, dimension) }
      let key = normal.enumerated().map {
        stored(rotate(linear($1, "\(name).self_attn.k_proj"), position: $0, dimension))
      }
      let value = normal.map { stored(linear($0, "\(name).self_attn.v_proj")) }
      let used = (0..<heads).map { head -> [[Double]] in
        tokens.indices.map { row -> [Double] in
          let group = head / groupSize
          let q = query[row][head * dimension..<(head + 1) * dimension]
          let logits = (0...row).map { position -> Double in
            let k = key[position][group * dimension..<(group + 1) * dimension]
            let product: Double = zip(q, k).reduce(0.0) { $0 + $1.0 * $1.1 }
            return product / Double(dimension).squareRoot()
          }
          let own = softmax(logits)
          guard case .mapped(let near, let far) = plan?.units[layer][group] else { return own }
          let source: [Double]
          switch far {
          case .nothing: source = own.map { _ in 0 }
          case .layer(let lower): source = maps[lower][head][row]
          case .small(let mixture):
            var mixed = own.map { _ in 0.0 }
            for (lender, weight) in zip(mixture.heads, mixture.weights[head % groupSize]) {
              let rows = lent[lender.layer][lender.head][row]
              for position in mixed.indices { mixed[position] += Double(weight) * rows[position] }
            }
            source = mixed
          }
          return Self.merge(own: own, far: source, near: near)
        }
      }
      maps.append(used)
      for row in tokens.indices {
        var attended = Array(repeating: 0.0, count: size)
        for index in attended.indices {
          let head = index / dimension
          let column = head / groupSize * dimension + index % dimension
          for (position, weight) in used[head][row].enumerated() { attended[index] += weight * value[position][column] }
        }
        add(linear(attended, "\(name).self_attn.o_proj"), to: &hidden[row])
        let normal = normalize(hidden[row], "\(name).post_attention_layernorm")
        let gate = linear(normal, "\(name).mlp.gate_proj")
        let up = linear(normal, "\(name).mlp.up_proj")
        let gated = zip(gate, up).map { (gate: Double, up: Double) -> Double in gate / (1 + exp(-gate)) * up }
        add(linear(gated, "\(name).mlp.down_proj"), to: &hidden[row])
      }
    }
    let output = configuration.tieWordEmbeddings ? "model.embed_tokens" : "lm_head"
    return (hidden.map { linear(normalize($0, "model.norm"), output) }, maps)
  }

  /// Far weights as they are, near ones sharing what these leave.
  private static func merge(own: [Double], far: [Double], near: NearWindow?) -> [Double] {
    guard let near else { return far }
    let farPositions = near.far(of: own.count - 1)
    var (farWeight, nearWeight) = (0.0, 0.0)
    for position in own.indices {
      if farPositions.contains(position) { farWeight += far[position] } else { nearWeight += own[position] }
    }
    let share = max(0, 1 - farWeight) / nearWeight
    return own.indices.map { farPositions.contains($0) ? far[$0] : own[$0] * share }
  }

  private func softmax(_ logits: [Double]) -> [Double] {
    let largest = logits.max() ?? 0
    let weights = logits.map { exp($0 - largest) }
    let sum = weights.reduce(0, +)
    return weights.map { $0 / sum }
  }

  private func add(_ values: [Double], to sum: inout [Double]) {
    for index in sum.indices { sum[index] += values[index] }
  }

  private func linear(_ input: [Double], _ name: String) -> [Double] {
    let matrix = weights["\(name).weight"] ?? []
    let bias = weights["\(name).bias"]
    return (0..<matrix.count / input.count).map { row in
      var sum = bias?[row] ?? 0
      for (index, value) in input.enumerated() { sum += matrix[row * input.count + index] * value }
      return sum
    }
  }

  private func normalize(_ input: [Double], _ name: String) -> [Double] {
    let weight = weights["\(name).weight"] ?? []
    var squares = 0.0
    for value in input { squares += value * value }
    let factor = 1 / (squares / Double(input.count) + configuration.rmsNormEps).squareRoot()
    return zip(input, weight).map { $0 * factor * $1 }
  }

  /// Half-split rotary positions of every head.
  private func rotate(_ input: [Double], position: Int, _ dimension: Int) -> [Double] {
    var output = input
    let half = dimension / 2
    for head in stride(from: 0, to: input.count, by: dimension) {
      for index in 0..<half {
        let angle = Double(position) * pow(configuration.ropeTheta, -Double(2 * index) / Double(dimension))
        let (first, second) = (input[head + index], input[head + half + index])
        output[head + index] = first * cos(angle) - second * sin(angle)
        output[head + half + index] = second * cos(angle) + first * sin(angle)
      }
    }
    return output
  }
}
