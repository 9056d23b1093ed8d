// Real models against PyPI `transformers` on their dequantised weights (`make_references.py`). Each test runs where the
// model has been fetched, and says so where not.

import Foundation
import KindredCompute
import KindredGeneration
import KindredModelStore
import KindredTransformer
import Testing

/// The references of `make_references.py`.
struct References: Decodable {
  struct Model: Decodable {
    let nll: [Double]
    let prompts: [String: Prompt]
  }

  struct Prompt: Decodable {
    let text: String
    let prompt: [Int32]
    let continuation: [Int32]
    let gap: [Double]
  }

  let models: [String: Model]

  private struct Key: CodingKey {
    let stringValue: String
    var intValue: Int? { nil }
    init?(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { nil }
  }

  init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: Key.self)
    var models: [String: Model] = [:]
    for key in container.allKeys where key.stringValue != "versions" {
      models[key.stringValue] = try container.decode(Model.self, forKey: key)
    }
    self.models = models
  }

  static func load() throws -> References {
    let url = try #require(Bundle.module.url(forResource: "Fixtures/real_models", withExtension: "json"))
    return try JSONDecoder().decode(References.self, from: Data(contentsOf: url))
  }
}

/// WikiText-2's test text, beside the project where it is present.
let wikiText = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
  .appendingPathComponent("../../../shared/data/wikitext2/wiki.test.raw").standardizedFileURL.path

func isFetched(_ model: String) -> Bool { (try? ModelStore().path(of: model)) != nil }

/// One test at a time: the models are large.
@Suite(.serialized) struct RealModelTests {
  static let models = ["smollm2-135m", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"]
  static var fetched: [String] { models.filter(isFetched) }

  func load(_ name: String) throws -> LanguageModel<CPUBackend> {
    try LanguageModel(OpenedModel(path: ModelStore().path(of: name)), backend: CPUBackend())
  }

  @Test(
    .enabled(if: !fetched.isEmpty, "no model is fetched"),
    .enabled(if: FileManager.default.fileExists(atPath: wikiText), "no WikiText-2 beside the project"),
    arguments: fetched)
  func perplexityIsTheReferences(name: String) throws {
    let reference = try #require(try References.load().models[name]).nll
    let model = try load(name)
    let text = try String(contentsOfFile: wikiText, encoding: .utf8)
    let tokens = Array(try #require(model.tokenizer).encode(String(text.prefix(8_000))).prefix(512))
    let vocabulary = model.decoder.configuration.vocabularySize
    var nll: [Double] = []
    try Session(decoder: model.decoder).append(tokens) { first, logits in
      for row in 0..<logits.count / vocabulary where first + row + 1 < tokens.count {
        let values = logits[row * vocabulary..<(row + 1) * vocabulary]
        let maximum = values.max() ?? 0
        let sum = values.reduce(0.0) { $0 + Double(exp($1 - maximum)) }
        nll.append(log(sum) + Double(maximum) - Double(values[values.startIndex + Int(tokens[first + row + 1])]))
      }
    }
    #expect(nll.count == reference.count)
    let mean = nll.reduce(0, +) / Double(nll.count)
    let expected = reference.reduce(0, +) / Double(reference.count)
    #expect(abs(exp(mean - expected) - 1) < 0.01, "perplexity \(exp(mean)), expected \(exp(expected))")
  }

  /// Five prompts, 64 tokens each: the same tokens, or the first other one where the reference's two best logits are
  /// within 0.05. After short prompts the gap between these two is the reference's within 0.01 (root mean square), where
  /// products and attention of few rows are as exact as on AVX2.
  @Test(.enabled(if: !fetched.isEmpty, "no model is fetched"), arguments: fetched)
  func greedyContinuationIsTheReferences(name: String) throws {
    let reference = try #require(try References.load().models[name])
    let model = try load(name)
    let tokenizer = try #require(model.tokenizer)
    #expect(reference.prompts.count == 5)
    for (title, prompt) in reference.prompts.sorted(by: { $0.key < $1.key }) {
      #expect(tokenizer.encode(prompt.text) == prompt.prompt, "\(title): tokens of the prompt")
      let session = try Session(decoder: model.decoder)
      var logits = try session.append(prompt.prompt)
      var squares: [Double] = []
      for (step, expected) in prompt.continuation.enumerated() {
        let best = twoBest(logits)
        if best.first.token != expected {
          #expect(
            prompt.gap[step] < 0.05, "\(title): other token at step \(step), where the gap is \(prompt.gap[step])")
          break
        }
        let difference = Double(best.first.logit - best.second.logit) - Double(prompt.gap[step])
        squares.append(difference * difference)
        logits = try session.append([expected])
      }
      let isExact = ["avx2", "generic"].contains(model.decoder.backend.configuration.instructionSet)
      if isExact, prompt.prompt.count < model.decoder.backend.manyRows {
        let error = (squares.reduce(0, +) / Double(max(1, squares.count))).squareRoot()
        #expect(error < 0.01, "\(title): gaps are the reference's within \(error)")
      }
    }
  }

  private typealias Ranked = (token: Int32, logit: Float)

  private func twoBest(_ logits: [Float]) -> (first: Ranked, second: Ranked) {
    var (first, second): (Ranked, Ranked) = ((-1, -.infinity), (-1, -.infinity))
    for (token, logit) in logits.enumerated() where logit > second.logit {
      second = (Int32(token), logit)
      if logit > first.logit { swap(&first, &second) }
    }
    return (first, second)
  }
}
