// The part of a report that sets the paper's claims against what was measured. Whether they agree follows from numbers
// by the rules below, and a reason is named only where the results hold it.

import Foundation

/// A claim of the paper and what was found.
struct Claim: Hashable {
  enum Verdict: String {
    case agrees
    case better = "better than the paper"
    case less = "less than the paper"
    case disagrees
  }

  var claim: String
  var paper: String
  var here: String
  var verdict: Verdict
  /// What the results say of why.
  var reasons: [String] = []
}

/// Compares results with the paper's claims.
struct ClaimSection {
  let folder: ResultFolder

  var claims: [Claim] { folder.evaluations.flatMap { perplexity($0.result) } + efficiency + analyses }

  var blocks: [ReportBlock] {
    let claims = self.claims
    guard !claims.isEmpty else { return [] }
    let apart = claims.filter { $0.verdict == .less || $0.verdict == .disagrees }
    let reasons = apart.filter { !$0.reasons.isEmpty }.map { "\($0.claim): \($0.reasons.joined(separator: " "))" }
    return [
      .paragraph(
        "\(claims.count) claims of the paper can be checked with these results; \(apart.count) of them do not hold here, "
          + "or hold less. Reasons are named where the results show them."),
      .table(
        ReportTable(
          "The paper's claims and what was measured", columns: ["claim", "paper", "here", "verdict"],
          rows: claims.map { [$0.claim, $0.paper, $0.here, $0.verdict.rawValue] }, textColumns: [0, 1, 2, 3])),
      .list(reasons),
      .paragraph(
        "Rules: a perplexity agrees where the paper's factor lies in the 95% interval, or above it; a gain in time agrees "
          + "where the paper's lies between the smallest and the largest of the runs, or within 0.02 of the median; KV "
          + "bytes agree within 1 point; a mean cosine within 0.03; a map stays where less than 0.02 of cosine is lost; "
          + "a measure is worse than another from 0.05 of log-perplexity on."),
    ]
  }

  // MARK: Perplexity

  private func perplexity(_ result: EvaluationResult) -> [Claim] {
    guard result.task == "perplexity", let unmapped = result.unmapped?.scores["perplexity"]?.value, unmapped > 0
    else { return [] }
    return result.methods.compactMap { method in
      guard let paper = method.paperFactor, let ratio = method.paperRatio, let score = method.scores["perplexity"]
      else { return nil }
      let factor = score.value / unmapped
      let (low, high) = Self.factorInterval(method, score: score, unmapped: unmapped)
      var claim = Claim(
        claim: "Perplexity with \(NumberText.percent(ratio, digits: 0)) of the layers mapped (Table 4)",
        paper: NumberText.times(paper),
        here: "\(NumberText.times(factor)) (\(NumberText.times(low)) to \(NumberText.times(high)))",
        verdict: low <= paper ? .agrees : .disagrees)
      if claim.verdict == .disagrees {
        claim.reasons = reasons(of: method, factor: factor, in: result, unmapped: unmapped)
      }
      return claim
    }
  }

  /// The 95% interval of a factor on perplexity: paired, from the difference in log-perplexity, where that is known.
  private static func factorInterval(
    _ method: MethodResult, score: Estimate, unmapped: Double
  ) -> (low: Double, high: Double) {
    guard let difference = method.differences["nll"] else { return (score.low / unmapped, score.high / unmapped) }
    return (exp(difference.low), exp(difference.high))
  }

  private func reasons(
    of method: MethodResult, factor: Double, in result: EvaluationResult, unmapped: Double
  ) -> [String] {
    func factorOf(_ method: MethodResult) -> Double? { method.scores["perplexity"].map { $0.value / unmapped } }
    var reasons: [String] = []
    if let cosine = meanBestCosine, cosine < PaperNumbers.bestCosine.sameSeries - 0.03 {
      reasons.append(
        "The heads of this pair are less alike than the paper's: mean best cosine \(NumberText.significant(cosine)) "
          + "against \(PaperNumbers.bestCosine.sameSeries).")
    }
    if let small = result.methods.first(where: { $0.method == "small" }).flatMap(factorOf) {
      reasons.append("The small model alone has \(NumberText.times(small)).")
    }
    let random = result.methods.first { $0.kind == "random" && $0.setting == method.setting }
    if let drawn = random.flatMap(factorOf) {
      reasons.append("With small heads drawn by chance it is \(NumberText.times(drawn)).")
    }
    // Plans that hold no more, and lose less.
    let plans = result.methods.filter { $0.kind == "plan" && $0.kvBytes <= method.kvBytes }
    let best = plans.compactMap { plan in factorOf(plan).map { (plan, $0) } }.min { $0.1 < $1.1 }
    if let (plan, better) = best, better < factor {
      reasons.append(
        "\(plan.method) holds no more KV bytes and has \(NumberText.times(better)): which layers and heads borrow, and "
          + "what stays near, matters more than that they borrow.")
    }
    return reasons
  }

  private var meanBestCosine: Double? {
    let similarity = folder.analyses.first { $0.name == "similarity" }
    let cosines = similarity?.table("similarity-best")?.numbers("mean_best_cosine")?.compactMap(\.self) ?? []
    return cosines.isEmpty ? nil : mean(cosines)
  }

  // MARK: Efficiency

  private var efficiency: [Claim] {
    folder.scenarios.flatMap { found -> [Claim] in
      let result = found.result.result
      guard let paper = PaperNumbers.efficiency[result.scenario.name], let gain = result.gain,
        let mapped = result.mapped
      else { return [] }
      let model = found.result.conditions.first { $0.name == "model" }?.value ?? found.file
      let place = "\(result.scenario.name), \(model)"
      func part(_ name: String, _ small: Double, of whole: Double) -> [String] {
        ["Of the pair's \(name) the small model takes \(NumberText.percent(whole > 0 ? small / whole : nil))."]
      }
      return [
        Self.gain(
          "Time to first token, \(place) (Table 3)", gain.ttft, paper: paper.ttft.gain,
          reasons: part("time to first token", mapped.smallTTFTSeconds, of: mapped.ttftSeconds.median)),
        Self.gain(
          "Time per token, \(place) (Table 3)", gain.tpot, paper: paper.tpot.gain,
          reasons: part("time per token", mapped.smallTPOTSeconds, of: mapped.tpotSeconds.median)),
        Self.gain("Throughput, \(place) (Table 3)", gain.throughput, paper: 1 / paper.throughput.gain, reasons: []),
        Self.memory("KV bytes saved, \(place) (Table 3)", result, mapped: mapped, paper: paper),
      ]
    }
  }

  private static func gain(_ claim: String, _ gain: MedianAndRange, paper: Double, reasons: [String]) -> Claim {
    let isClose = (gain.minimum...max(gain.minimum, gain.maximum)).contains(paper) || abs(gain.median - paper) <= 0.02
    let verdict: Claim.Verdict =
      isClose ? .agrees : gain.median > paper ? .better : gain.median > 1 ? .less : .disagrees
    return Claim(
      claim: claim, paper: NumberText.times(paper), here: gain.text(suffix: "×"), verdict: verdict, reasons: reasons)
  }

  private static func memory(
    _ claim: String, _ result: ScenarioResult, mapped: ScenarioResult.Figures, paper: PaperNumbers.Efficiency
  ) -> Claim {
    let unmapped = result.publishedKVBytes(result.unmapped)
    let saved = 1 - result.publishedKVBytes(mapped) / unmapped
    let large = 1 - Double(mapped.kvBytesLarge) / Double(max(1, result.unmapped.kvBytesLarge))
    let tokens = Double(result.scenario.sequences * (result.scenario.promptTokens + result.scenario.generatedTokens))
    let published = 1 - 1 / paper.kvGigabytes.gain
    let verdict: Claim.Verdict =
      abs(saved - published) <= 0.01 ? .agrees : saved > published ? .better : saved > 0 ? .less : .disagrees
    return Claim(
      claim: claim, paper: NumberText.percent(published), here: NumberText.percent(saved), verdict: verdict,
      reasons: [
        "The large model holds \(NumberText.percent(large)) less, the small one adds "
          + "\(NumberText.percent(Double(mapped.kvBytesSmall) / unmapped)) of the unmapped model's bytes.",
        "Unmapped, a token takes \(NumberText.bytes(unmapped / tokens)) here and "
          + "\(NumberText.bytes(1e9 * paper.kvGigabytes.unmapped / Double(paper.tokens))) in the paper.",
      ])
  }

  // MARK: Analyses

  private var analyses: [Claim] {
    var claims: [Claim] = []
    if let cosine = meanBestCosine {
      let paper = PaperNumbers.bestCosine.sameSeries
      claims.append(
        Claim(
          claim: "Mean cosine of a head with its most alike one", paper: "\(paper) (7B to 72B)",
          here: NumberText.significant(cosine), verdict: cosine > paper - 0.03 ? .agrees : .less))
    }
    for run in folder.analyses {
      switch run.name {
      case "metrics": claims += measures(run)
      case "layers": claims += costliestPart(run)
      case "consistency": claims += consistency(run)
      default: break
      }
    }
    return claims
  }

  private func measures(_ run: ResultFolder.AnalysisRun) -> [Claim] {
    guard let table = run.table("metrics"), let names = table.column("similarity")?.map(\.display),
      let costs = table.numbers("log_perplexity"), let paperCosine = PaperNumbers.measures[.cosine],
      let paperPearson = PaperNumbers.measures[.pearson]
    else { return [] }
    func cost(_ name: String) -> Double? { names.firstIndex(of: name).flatMap { costs[$0] } }
    guard let cosine = cost("cosine"), let pearson = cost("pearson"), let least = costs.compactMap(\.self).min() else {
      return []
    }
    func number(_ value: Double) -> String { NumberText.significant(value, digits: 4) }
    return [
      Claim(
        claim: "Pearson's correlation matches heads far worse than the cosine (Table 1, log-perplexity)",
        paper: "\(paperPearson.tiny) against \(paperCosine.tiny)", here: "\(number(pearson)) against \(number(cosine))",
        verdict: pearson - cosine >= 0.05 ? .agrees : .disagrees),
      Claim(
        claim: "No measure is clearly better than the cosine (Table 1, log-perplexity)",
        paper: "\(paperCosine.tiny), best \(PaperNumbers.measures.values.map(\.tiny).min() ?? .nan)",
        here: "\(number(cosine)), best \(number(least))", verdict: cosine - least < 0.05 ? .agrees : .disagrees),
    ]
  }

  private func costliestPart(_ run: ResultFolder.AnalysisRun) -> [Claim] {
    guard let table = run.table("layers"), let parts = table.column("layers")?.map(\.display),
      let costs = table.numbers("kl_to_unmapped")?.map({ $0 ?? 0 }), parts.count > 1,
      let most = costs.indices.max(by: { costs[$0] < costs[$1] })
    else { return [] }
    let isFirst = most < max(1, parts.count / 5)
    let isLast = most == parts.count - 1
    return [
      Claim(
        claim: "The first layers cost most when they borrow (Fig. 2, Table 2)", paper: "block 0 of 9",
        here: "layers \(parts[most]), part \(most) of \(parts.count - 1)", verdict: isFirst ? .agrees : .disagrees,
        reasons: isLast ? ["Here it is the last ones, with which the recipe begins."] : [])
    ]
  }

  private func consistency(_ run: ResultFolder.AnalysisRun) -> [Claim] {
    guard let table = run.table("consistency-layers"),
      let same = table.numbers("share_same")?.compactMap(\.self), !same.isEmpty,
      let lost = table.numbers("cosine_lost")?.compactMap(\.self), !lost.isEmpty
    else { return [] }
    return [
      Claim(
        claim: "The prompt's map can be kept while text is generated (Fig. 3)", paper: "kept",
        here: "\(NumberText.percent(mean(same))) of heads keep theirs; cosine lost "
          + NumberText.significant(mean(lost)),
        verdict: mean(lost) < 0.02 ? .agrees : .disagrees)
    ]
  }
}
