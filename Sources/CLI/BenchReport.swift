// What `kindred bench` prints for people.

import Foundation
import Kindred
import KindredEvaluation

extension BenchCommand {
  /// Which models ran, and how.
  func printTitle(_ conditions: RunConditions, batch: Int) {
    let small = conditions.smallModel.map { " + \($0)" } ?? ""
    let layers = conditions.mappedLayers.map { "\($0)" } ?? "that the prompt decides"
    let mapped = layers == "[]" ? "" : ", layers \(layers) mapped"
    let pair = small + mapped
    let isRandom = conditions.model.hasPrefix("random:") || conditions.smallModel?.hasPrefix("random:") == true
    print("\(conditions.model)\(pair)\(isRandom ? " (random weights)" : "")")
    let types = [conditions.kvType, conditions.smallKVType].compactMap { $0?.rawValue }.joined(separator: " + ")
    print("\(conditions.threads) threads, \(conditions.isa), KV \(types), batch \(batch)\n")
  }

  func printSpeed(_ result: SpeedResult, conditions: RunConditions) {
    printTitle(conditions, batch: batch)
    if let prefill = result.prefillTokensPerSecond { printRow("prefill of \(promptTokens), tokens/s", prefill) }
    let place = depth.map { " at depth \($0)" } ?? ""
    printRow("decode of \(generateTokens)\(place), tokens/s", result.decodeTokensPerSecond)
    if let ttft = result.ttftSeconds { printRow("time to first token, ms", ttft, factor: 1000) }
    printRow("time per token, ms", result.tpotSeconds, factor: 1000)
    print("\nload \(conditions.loadSeconds.formatted(digits: 2)) s, weights \(byteText(conditions.weightBytes))")
    print("KV cache \(byteText(result.kv.total)), unmapped \(byteText(result.kv.unmapped))")
    if let peak = result.peakRSSBytes { print("peak resident memory \(byteText(peak))") }
  }

  private func printRow(_ name: String, _ value: MedianAndRange, factor: Double = 1) {
    let figures = [value.median, value.minimum, value.maximum].map { ($0 * factor).formatted(digits: 1) }
    print("\(name.padded(to: 36)) \(figures[0])  (\(figures[1])–\(figures[2]))")
  }

  // MARK: Profile

  func printProfile(_ profile: SpeedProfile) {
    let models = [("", profile.large), ("small model: ", profile.small)]
    for case (let name, let model?) in models {
      if let prefill = model.prefill { printTable("\(name)prefill, a prompt of \(promptTokens)", prefill) }
      printTable("\(name)decode, a token of each of \(batch) sequences", model.decode)
    }
  }

  private func printTable(_ title: String, _ profile: StepProfile) {
    let header = ["calls", "ms", "share", "GOP/s", "GB/s"].map { $0.padded(to: 10, right: true) }.joined()
    print("\n\(title)\n\("".padded(to: 24))\(header)")
    for row in profile.rows {
      let figures = [
        row.callsPerStep.formatted(digits: 1), (row.secondsPerStep * 1000).formatted(digits: 3),
        "\((row.share * 100).formatted(digits: 1))%",
        row.operationsPerSecond.map { ($0 / 1e9).formatted(digits: 0) } ?? "",
        row.weightBytesPerSecond.map { ($0 / 1e9).formatted(digits: 1) } ?? "",
      ]
      print(row.part.rawValue.padded(to: 24) + figures.map { $0.padded(to: 10, right: true) }.joined())
    }
    let total = (profile.secondsPerStep * 1000).formatted(digits: 3)
    print("all".padded(to: 24) + "".padded(to: 10) + total.padded(to: 10, right: true))
  }

  // MARK: Saving

  func printSaving(_ result: SavingResult) {
    print("predicted: each operation's time without borrowing × what remains of its operations (time to first token)")
    print("or bytes (time per token), and the small model's ordinary pass as measured in the pair.")
    print("The small model counts at \(result.smallShare.formatted(digits: 4)) of its time.")
    let heads = "\(result.lentHeads) small heads in \(result.distinctProducts) products"
    print("Layers that borrow: \(result.mappedLayers); they use \(heads).")
    if let ttft = result.ttft { printTable("time to first token, prompt of \(promptTokens)", ttft) }
    printTable("time per token, batch \(batch), depth \(depth ?? promptTokens)", result.tpot)
  }

  private func printTable(_ title: String, _ saving: Saving) {
    func printLine(_ name: String, _ figures: [String]) {
      print(name.padded(to: 26) + figures.map { $0.padded(to: 15, right: true) }.joined())
    }
    func printTimes(_ name: String, _ seconds: [Double]) {
      printLine(name, seconds.map { ($0 * 1000).formatted(digits: 3) })
    }
    print("\n\(title)")
    printLine("ms", ["unmapped", "predicted", "measured"])
    for row in saving.rows {
      printTimes(row.part, [row.unmappedSeconds, row.predictedSeconds, row.measuredSeconds])
    }
    let totals = [saving.unmappedSeconds, saving.predictedSeconds, saving.measuredSeconds]
    printTimes("all (medians)", totals.map(\.median))
    printTimes("  least", totals.map(\.minimum))
    printTimes("  most", totals.map(\.maximum))
    let gains = [saving.predictedGain, saving.measuredGain].map { "\($0.formatted(digits: 3))×" }
    printLine("gain", [""] + gains + [reachedText(saving.reached)])
    let change = [saving.predictedChange, saving.measuredChange].map { ($0 * 1000).formatted(digits: 3) }
    printLine("saved by what changes", [""] + change + [reachedText(saving.changeReached)])
  }

  private func reachedText(_ share: Double?) -> String {
    share.map { "reached \(($0 * 100).formatted(digits: 0))%" } ?? "none foreseen"
  }
}

extension String {
  /// The text with spaces after it, or before it, up to `width` characters.
  fileprivate func padded(to width: Int, right: Bool = false) -> String {
    let spaces = String(repeating: " ", count: max(0, width - count))
    return right ? spaces + self : self + spaces
  }
}
