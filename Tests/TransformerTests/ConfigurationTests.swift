// Configurations that no model has: refused before anything is allocated or computed with them.

import Foundation
import KindredTransformer
import Testing

@Suite struct ConfigurationTests {
  /// Opens the tiny Llama with other values in `config.json`.
  func open(_ change: (inout [String: Any]) -> Void) throws -> DecoderConfiguration {
    let fixture = try #require(Bundle.module.url(forResource: "Fixtures/llama", withExtension: nil))
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("kindred-config-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: folder) }
    try FileManager.default.copyItem(at: fixture, to: folder)
    let path = folder.appendingPathComponent("config.json")
    var config = try #require(try JSONSerialization.jsonObject(with: Data(contentsOf: path)) as? [String: Any])
    change(&config)
    try JSONSerialization.data(withJSONObject: config).write(to: path)
    return try OpenedModel(path: folder.path).configuration
  }

  @Test func theFixtureItselfIsAccepted() throws {
    #expect(try open { _ in }.attention.queryHeads == 4)
    #expect(try open { $0["rope_scaling"] = ["rope_type": "linear", "factor": 2] }.rotary.frequencies[0] == 0.5)
  }

  static let badScalings: [[String: any Sendable]] = [
    ["rope_type": "linear", "factor": 0],
    ["rope_type": "linear", "factor": -1],
    [
      "rope_type": "llama3", "factor": 0, "low_freq_factor": 1, "high_freq_factor": 4,
      "original_max_position_embeddings": 8,
    ],
  ]

  @Test(arguments: badScalings)
  func scalingThatGivesNoFrequenciesIsRefused(scaling: [String: any Sendable]) {
    let error = #expect(throws: (any Error).self) { _ = try open { $0["rope_scaling"] = scaling } }
    #expect(error.map { "\($0)" }?.contains("rotary scaling: expected frequencies that are finite") == true)
  }

  @Test func tooManyHeadsAndHeadsWithoutElementsAreRefused() {
    let many = #expect(throws: (any Error).self) {
      _ = try open {
        $0["num_attention_heads"] = 2048
        $0["num_key_value_heads"] = 2048
        $0["head_dim"] = 2
      }
    }
    #expect(many.map { "\($0)" }?.contains("heads: expected at most 1024, found 2048") == true)
    let empty = #expect(throws: (any Error).self) {
      _ = try open {
        $0["num_attention_heads"] = 64
        $0["num_key_value_heads"] = 64
      }
    }
    #expect(empty.map { "\($0)" }?.contains("head dimension: expected 1 to 4096, found 0") == true)
  }
}
