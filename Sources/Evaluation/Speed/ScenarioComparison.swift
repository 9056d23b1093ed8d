// A scenario's result beside the paper's Table 3, as rows for terminals and reports.

extension ScenarioResult {
  /// A table of ``comparison``.
  public static let comparisonColumns = [
    "", "unmapped", "mapped", "gain", "paper, unmapped", "paper, mapped", "paper, gain",
  ]

  /// One row for each figure, with medians and ranges; the paper's stand beside it where the scenario is its own.
  ///
  /// The paper's absolute figures are of GPUs and of full size; what can be compared is the gain.
  public var comparison: [[String]] {
    let paper = PaperNumbers.efficiency[scenario.name]
    return times(paper) + memory(paper)
  }

  private func times(_ paper: PaperNumbers.Efficiency?) -> [[String]] {
    func row(
      _ name: String, _ value: (Figures) -> MedianAndRange, factor: Double = 1, gain: MedianAndRange? = nil,
      paper: PaperNumbers.Change? = nil, paperGain: Double? = nil
    ) -> [String] {
      [
        name, value(unmapped).text(factor: factor), mapped.map { value($0).text(factor: factor) } ?? NumberText.none,
        gain?.text(suffix: "×") ?? NumberText.none, NumberText.significant(paper.map { $0.unmapped * factor }),
        NumberText.significant(paper.map { $0.mapped * factor }), NumberText.times(paperGain),
      ]
    }
    return [
      row(
        "time to first token of all sequences, s", \.ttftSeconds, gain: gain?.ttft, paper: paper?.ttft,
        paperGain: paper?.ttft.gain),
      row("time to first token of the first sequence, s", \.firstTTFTSeconds),
      row(
        "time per token, ms", \.tpotSeconds, factor: 1000, gain: gain?.tpot, paper: paper?.tpot,
        paperGain: paper?.tpot.gain),
      row(
        "throughput, prompt and generated tokens/s", \.tokensPerSecond, gain: gain?.throughput,
        paper: paper?.throughput, paperGain: paper.map { 1 / $0.throughput.gain }),
      row("throughput, generated tokens/s", \.generatedTokensPerSecond),
    ]
  }

  private func memory(_ paper: PaperNumbers.Efficiency?) -> [[String]] {
    func row(
      _ name: String, paper: PaperNumbers.Change? = nil, _ value: (Figures) -> Double?
    ) -> [String] {
      let (alone, pair) = (value(unmapped), mapped.flatMap(value))
      let gain = alone.flatMap { alone in pair.flatMap { alone > 0 && $0 > 0 ? alone / $0 : nil } }
      return [
        name, NumberText.bytes(alone), NumberText.bytes(pair), NumberText.times(gain),
        NumberText.bytes(paper?.unmapped), NumberText.bytes(paper?.mapped), NumberText.times(paper?.gain),
      ]
    }
    func scaled(_ change: PaperNumbers.Change, by factor: Double) -> PaperNumbers.Change {
      PaperNumbers.Change(unmapped: change.unmapped * factor, mapped: change.mapped * factor)
    }
    let tokens = Double(scenario.sequences * (scenario.promptTokens + scenario.generatedTokens))
    let isPart = layerCount < publishedLayerCount
    let all = isPart ? "KV, both models, all \(publishedLayerCount) layers" : "KV, both models"
    return [
      row("KV, large model\(isPart ? ", \(layerCount) layers" : "")") { Double($0.kvBytesLarge) },
      row("KV, small model") { Double($0.kvBytesSmall) },
      row(all, paper: paper.map { scaled($0.kvGigabytes, by: 1e9) }) { publishedKVBytes($0) },
      row("\(all), per token", paper: paper.map { scaled($0.kvGigabytes, by: 1e9 / Double($0.tokens)) }) {
        publishedKVBytes($0) / tokens
      },
      row("most memory held, weights of both models loaded") { $0.peakRSSBytes.map(Double.init) },
    ]
  }

  /// How the scenario was run, in sentences.
  public var conditions: [String] {
    var sentences = ["\(scenario.sizes)."]
    if scenario.scale != 1 {
      let published = Scenario.published.first { $0.name == scenario.name }
      let full = published.map { ", from \($0.sizes)" } ?? ""
      sentences[0] =
        "\(scenario.sizes)\(full): the number of sequences and both lengths multiplied by "
        + "\(scenario.scale) and rounded."
    }
    if layerCount < publishedLayerCount {
      sentences.append(
        "\(layerCount) of \(publishedLayerCount) layers of the large model are present; the small model's time counts "
          + "at \(NumberText.percent(smallShare)).")
    }
    if mapped != nil {
      sentences.append("\(mappedLayerCount) of \(layerCount) layers borrow.")
      sentences.append(
        repeats == 1
          ? "One run of each: times differ by chance, too."
          : "Both take turns; medians of \(repeats) (smallest–largest).")
    }
    return sentences
  }
}
