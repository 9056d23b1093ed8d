// What lies on either side of the models: choosing tokens, and turning text into them.

import Benchmark
import Foundation
import KindredCompute
import KindredGeneration

/// One token of Qwen's vocabulary, greedily and drawn. Every logit must be read; the ceiling is all threads'.
func registerSampling() {
  let vocabulary = 151_936
  let drawn: SamplingOptions = {
    var options = SamplingOptions()
    options.temperature = 0.8
    options.topK = 40
    options.topP = 0.95
    options.seed = 1
    return options
  }()
  for (name, options) in [("greedy", SamplingOptions()), ("top-k 40, top-p 0.95", drawn)] {
    register("sampling of \(vocabulary), \(name)", metrics: BenchmarkMetric.memory) {
      let logits = (0..<vocabulary).map { _ in Float.random(in: -10...10) }
      var sampler = Sampler(options)
      return Workload(
        backend: try CPUBackend(), bytes: Double(vocabulary * 4),
        body: { blackHole(sampler.next(logits, history: [])) })
    }
  }
}

/// Where the model has been fetched. Table look-ups bound it, for which there is no ceiling.
func registerTokenizer() {
  let name = "qwen2.5-coder-0.5b"
  let home = ProcessInfo.processInfo.environment["KINDRED_HOME"] ?? NSHomeDirectory() + "/.cache/kindred"
  let folder = "\(home)/models/\(name)"
  let files = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
  guard let file = files.first(where: { $0.hasSuffix(".gguf") }) else {
    return FileHandle.standardError.write(Data("no tokenizer benchmark: `kindred fetch \(name)` first\n".utf8))
  }
  register("tokenizer, 1 MB of English", metrics: BenchmarkMetric.bytesAlone) {
    let pair = try ModelPair(largeAt: "\(folder)/\(file)")
    guard let tokenizer = pair.large.tokenizer else { throw PromptError.noTokenizer(model: name) }
    let text = String(decoding: englishText().utf8.prefix(1_000_000), as: UTF8.self)
    return Workload(
      backend: try CPUBackend(), bytes: Double(text.utf8.count), body: { blackHole(tokenizer.encode(text)) })
  }
}

/// WikiText-2's test text where it stands beside the project, else words in a like distribution of lengths.
private func englishText() -> String {
  let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent(
    "../../../shared/data")
  if let text = try? String(contentsOf: folder.appendingPathComponent("wikitext2/wiki.test.raw"), encoding: .utf8) {
    return text
  }
  let words = "the of and in to a was is for as on with by he that from at his it an were are which this".split(
    separator: " ")
  let longer = ["game", "series", "season", "Valkyria", "Chronicles", "development", "@-@", "character", "1942", ","]
  return (0..<250_000).map { index in
    index % 3 == 0 ? longer[Int.random(in: 0..<longer.count)] : String(words[Int.random(in: 0..<words.count)])
  }.joined(separator: " ")
}
