// One repetition's comparison of an unmapped and a mapped run, part by part, and medians over repetitions.

import KindredCompute
import KindredTransformer

/// Seconds of one phase without borrowing, with it as predicted, and with it as measured.
package struct Comparison {
  /// Seconds of a part, or of the whole.
  struct Times {
    var unmapped = 0.0
    var predicted = 0.0
    var measured = 0.0
  }

  private(set) var parts: [String: Times] = [:]

  /// The large model's parts in the order of a pass, then what only borrowing has.
  static let order = ModelPart.allCases.map(\.rawValue) + [establishing, smallModel]
  private static let establishing = "establishing the map"
  private static let smallModel = "small model, its share"

  /// - Parameters:
  ///   - unmapped: the large model alone.
  ///   - mapped: the pair.
  ///   - model: the large model.
  ///   - smallShare: the share at which the small model's time is counted.
  ///   - remaining: the share of a part's work that remains, given the part and its products.
  package init(
    unmapped: PhaseProfile, mapped: PhaseProfile, model: DecoderConfiguration, smallShare: Double,
    remaining: (ModelPart, [ProfiledProduct]) -> Double
  ) {
    for (operation, entry) in unmapped.large.entries {
      let part = ModelPart(operation, in: model)
      var products: [ProfiledProduct] = []
      if case .multiply(let found) = operation { products = found }
      parts[Self.name(of: part), default: Times()].unmapped += entry.seconds
      parts[Self.name(of: part), default: Times()].predicted += entry.seconds * remaining(part, products)
    }
    for (operation, entry) in mapped.large.entries {
      parts[Self.name(of: ModelPart(operation, in: model)), default: Times()].measured += entry.seconds
    }
    parts[ModelPart.rest.rawValue] = Times(
      unmapped: unmapped.otherSeconds, predicted: unmapped.otherSeconds, measured: mapped.otherSeconds)
    // Rows that are kept for the large model, and maps computed to establish the plan, are no part of an ordinary pass.
    let lent = mapped.small.entries[.probabilities]?.seconds ?? 0
    parts[Self.smallModel] = Times(
      predicted: smallShare * (mapped.small.seconds - lent), measured: smallShare * mapped.small.seconds)
  }

  /// The row of the comparison that a part belongs to: what replaces a part stands beside it.
  private static func name(of part: ModelPart) -> String {
    switch part {
    case .value: ModelPart.queryKeyValue.rawValue
    case .borrowedAttention: ModelPart.attention.rawValue
    case .lentRows, .packing, .otherProducts: establishing
    default: part.rawValue
    }
  }

  /// The sum of all parts.
  var total: Times { sum { _ in true } }

  /// The sum of the parts in which borrowing changes something.
  var changed: Times { sum { $0.predicted != $0.unmapped || $0.unmapped == 0 } }

  private func sum(where isIncluded: (Times) -> Bool) -> Times {
    parts.values.filter(isIncluded).reduce(into: Times()) { sum, times in
      sum.unmapped += times.unmapped
      sum.predicted += times.predicted
      sum.measured += times.measured
    }
  }
}

extension Saving {
  /// Medians over repetitions.
  ///
  /// - Parameters:
  ///   - comparisons: at least one.
  ///   - steps: steps of each, over which times are averaged.
  package init(_ comparisons: [Comparison], steps: Int) {
    func figures(_ times: [Comparison.Times], _ value: (Comparison.Times) -> Double) -> MedianAndRange {
      MedianAndRange(times.map { value($0) / Double(steps) })
    }
    let totals = comparisons.map(\.total)
    unmappedSeconds = figures(totals, \.unmapped)
    predictedSeconds = figures(totals, \.predicted)
    measuredSeconds = figures(totals, \.measured)
    let changed = comparisons.map(\.changed)
    predictedChange = figures(changed) { $0.unmapped - $0.predicted }.median
    measuredChange = figures(changed) { $0.unmapped - $0.measured }.median
    rows = Comparison.order.compactMap { name in
      let times = comparisons.compactMap { $0.parts[name] }
      guard !times.isEmpty else { return nil }
      return Row(
        part: name, unmappedSeconds: figures(times, \.unmapped).median,
        predictedSeconds: figures(times, \.predicted).median, measuredSeconds: figures(times, \.measured).median)
    }
  }
}
