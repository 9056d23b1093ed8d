// Small results as the commands write them, in a folder of their own.

import Foundation

/// A folder that is gone with the value.
final class ResultsFolder {
  let url: URL
  var path: String { url.path }

  /// - Parameter files: contents by name; names may have folders.
  init(_ files: [String: String]) throws {
    url = FileManager.default.temporaryDirectory.appendingPathComponent("kindred-report-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    for (name, text) in files {
      let file = url.appendingPathComponent(name)
      try FileManager.default.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
      try Data(text.utf8).write(to: file)
    }
  }

  deinit { try? FileManager.default.removeItem(at: url) }
}

enum ReportFixtures {
  /// One of each kind.
  static let all: [String: String] = [
    "perplexity.json": perplexity, "needle.json": needle, "multi-user.json": scenario, "machine.json": machine,
    "analyze/similarity.json": similarity, "analyze/similarity-layers.csv": similarityLayers,
    "analyze/similarity-best.csv": "large_layer,mean_best_cosine\n0,0.8\n1,0.9\n", "analyze/layers.csv": layers,
    "analyze/metrics.csv": metrics, "analyze/consistency-layers.csv": consistency, "analyze/usage.csv": usage,
    "analyze/strategies.csv": strategies,
  ]

  static func estimate(_ value: Double, spread: Double = 0.1) -> String {
    "{\"value\": \(value), \"low\": \(value - spread), \"high\": \(value + spread)}"
  }

  static func method(_ name: String, scores: String, groups: String = "{}", kvBytes: Int = 1000) -> String {
    let differences = name == "unmapped" ? "{}" : scores
    return """
      {"method": "\(name)", "scores": \(scores), "differences": \(differences), "groups": \(groups),
       "kv_bytes": \(kvBytes), "unmapped_kv_bytes": 1000, "seconds": 12.5}
      """
  }

  static func evaluation(_ task: String, methods: [String]) -> String {
    """
    {"task": "\(task)", "items": 16, "skipped_items": 0, "methods": [\(methods.joined(separator: ", "))],
     "provenance": {"date": "2026-11-21T12:00:00Z", "kindred_version": "0.1.0", "seed": 7,
       "command_line": ["kindred", "evaluate"], "files": {"model.gguf": "abcdef"}, "machine": {"processor": "P"}}}
    """
  }

  static func perplexity(_ value: Double) -> String { "{\"perplexity\": \(estimate(value))}" }

  static let perplexity = evaluation(
    "perplexity",
    methods: [
      method("unmapped", scores: perplexity(10)), method("small", scores: perplexity(20), kvBytes: 430),
      method("paper:0.3", scores: perplexity(14.8), kvBytes: 1280),
      method("paper:0.5", scores: perplexity(16.1), kvBytes: 1180),
      method("plan:keys-30.json", scores: perplexity(10.1), kvBytes: 1260),
    ])

  static let needle = evaluation(
    "needle",
    methods: ["unmapped", "paper:0.3"].map { name in
      let cells = [(1024, 0), (1024, 50), (4096, 0), (4096, 50)].map { length, depth in
        "\"length/\(length),depth/\(depth)\": {\"found\": \(estimate(length == 1024 ? 1 : 0.25))}"
      }
      return method(
        name, scores: "{\"found\": \(estimate(0.6))}", groups: "{\(cells.joined(separator: ", "))}", kvBytes: 900)
    })

  static func figures(factor: Double, large: Int, small: Int) -> String {
    func range(_ value: Double) -> String {
      "{\"median\": \(value), \"minimum\": \(value * 0.99), \"maximum\": \(value * 1.01)}"
    }
    return """
      {"ttft_seconds": \(range(2 * factor)), "first_ttft_seconds": \(range(0.2 * factor)),
       "tpot_seconds": \(range(0.1 * factor)), "small_ttft_seconds": 0.5, "small_tpot_seconds": 0.02,
       "tokens_per_second": \(range(100 / factor)), "generated_tokens_per_second": \(range(50 / factor)),
       "kv_bytes_large": \(large), "kv_bytes_small": \(small), "peak_rss_bytes": 2000000000}
      """
  }

  /// The pair takes longer, and 4 of 80 layers hold a twentieth of all.
  static let scenario = """
    {"model": "random:qwen2-72b:layers=4", "small_model": "random:qwen2-0.5b", "threads": 2, "isa": "avx512vnni",
     "kv_type": "f16",
     "scenario": {"name": "paper-multi-user", "scale": 0.25, "sequences": 16, "prompt_tokens": 128,
       "generate_tokens": 128, "ratio": 0.5, "repeat": 3, "layers": 4, "published_layers": 80, "mapped_layer_count": 2,
       "small_share": 0.05, "unmapped": \(figures(factor: 1, large: 4000, small: 0)),
       "mapped": \(figures(factor: 1.25, large: 3000, small: 3000)),
       "gain": {"ttft": \(gain), "tpot": \(gain), "throughput": \(gain)}}}
    """
  private static let gain = "{\"median\": 0.8, \"minimum\": 0.79, \"maximum\": 0.81}"

  static let machine = "{\"machine\": {\"date\": \"2026-11-21\", \"processor\": \"Some Processor\"}}"

  static let similarity = """
    {"analysis": "similarity", "model": "large.gguf", "small_model": "small.gguf", "tables": {}, "findings":
      [{"name": "mean cosine of a head and its most alike small one", "value": 0.85, "paper": "0.954"}]}
    """
  static let similarityLayers = "large,small_0,small_1,small_2\n0,0.1,0.2,0.9\n1,0.3,0.8,0.4\n"
  static let layers = """
    layers,log_perplexity,perplexity_factor,kl_to_unmapped,paper_mmlu
    0-1,2.5,1.0,0.03,0.567
    2-4,2.6,1.1,0.05,0.544
    5-7,2.7,1.2,0.18,0.816
    """
  static let metrics = """
    similarity,log_perplexity,perplexity_factor,paper_0.5b_log_perplexity
    cosine,3.35,1.65,2.577
    pearson,3.32,1.60,4.976
    minkowski-2,3.27,1.54,2.878
    """
  static let consistency = """
    large_layer,share_same,best_cosine,cosine_of_prompts_map,cosine_lost
    0,0.6,0.78,0.77,0.01
    1,0.2,0.75,0.65,0.1
    """
  static let usage = "small_layer,small_head,times,share\n1,0,30,0.6\n0,1,20,0.4\n"
  static let strategies = """
    strategy,ratio,log_perplexity,perplexity_factor,kl_to_unmapped,top1_agreement,paper_perplexity_factor
    back,0.3,3.1,1.4,0.4,0.7,1.0838
    back,0.5,3.3,1.6,0.5,0.6,1.4156
    front,0.3,3.0,1.3,0.3,0.7,
    """
}
