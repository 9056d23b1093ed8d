// MMLU on the real models against PyPI `transformers` on their dequantised weights (`make_mmlu.py`).

import Foundation
import KindredCompute
import KindredEvaluation
import KindredGeneration
import KindredModelStore
import KindredTransformer
import Testing

private func isFetched(_ model: String) -> Bool { (try? ModelStore().path(of: model)) != nil }

private let fetched = ["qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"].filter(isFetched)

@Suite(.serialized) struct MMLUReferenceTests {
  struct Reference: Decodable {
    struct Question: Decodable {
      let id: String
      let tokens: Int
      let logLikelihoods: [Double]
    }
    let questions: [Question]
  }

  /// Each letter's log-likelihood within 0.1, and the same answers wherever the reference's top two are further apart
  /// than that.
  @Test(
    .enabled(if: !fetched.isEmpty, "neither qwen2.5-coder-0.5b nor -1.5b is fetched"),
    .enabled(if: hasSharedData, "no evaluation data at ../shared/data"), arguments: fetched)
  func lettersAreTheReferences(name: String) throws {
    let url = try #require(Bundle.module.url(forResource: "Fixtures/mmlu", withExtension: "json"))
    let all = try #require(try JSONSerialization.jsonObject(with: Data(contentsOf: url)) as? [String: Any])
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    let reference = try decoder.decode(
      Reference.self, from: JSONSerialization.data(withJSONObject: #require(all[name])))
    #expect(reference.questions.count == 20)

    let expected = Dictionary(uniqueKeysWithValues: reference.questions.map { ($0.id, $0) })
    let sample = MMLUSample(
      items: try MMLUTask(data: sharedData + "/mmlu").items.filter { expected[$0.id] != nil }.map {
        TaskItem(id: $0.id, groups: [$0.id], request: $0.request, references: $0.references)
      })
    let model = try LanguageModel(OpenedModel(path: ModelStore().path(of: name)), backend: CPUBackend())
    let tokenizer = try #require(model.tokenizer)
    for item in sample.items { #expect(tokenizer.encode(item.prompt).count == expected[item.id]?.tokens, "\(item.id)") }
    let result = try TaskEvaluation(
      sample, methods: [.unmapped], models: MethodModels(large: model, small: nil), options: TaskRunOptions()
    ).run()[0]
    #expect(result.groups.count == 20)
    var worst = 0.0
    for question in reference.questions {
      let group = try #require(result.groups[question.id])
      let values = MMLUSample.letters.compactMap { group[$0]?.value }
      let difference = zip(values, question.logLikelihoods).map { abs($0 - $1) }.max() ?? .infinity
      worst = max(worst, difference)
      #expect(values.count == 4 && difference < 0.1, "\(question.id): \(values), expected \(question.logLikelihoods)")
      let order = question.logLikelihoods.indices.sorted { question.logLikelihoods[$0] > question.logLikelihoods[$1] }
      if question.logLikelihoods[order[0]] - question.logLikelihoods[order[1]] > 0.1 {
        #expect(values.indices.max { values[$0] < values[$1] } == order[0], "\(question.id)")
      }
    }
    print("\(name): the furthest of 80 log-likelihoods is \(worst) from the reference")
  }
}

/// Questions each of which is a group of its own, with the log-likelihoods of the letters for scores.
private struct MMLUSample: EvaluationTask {
  static let letters = ["A", "B", "C", "D"]

  let name = "mmlu-sample"
  let items: [TaskItem]

  func scores(of response: TaskResponse, to item: TaskItem) throws -> [String: Double] {
    guard case .logLikelihoods(let values) = response else { return [:] }
    return Dictionary(uniqueKeysWithValues: zip(Self.letters, values))
  }
}
