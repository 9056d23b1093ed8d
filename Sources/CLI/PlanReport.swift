// A plan for people: a table of its units, and a heat map of what they borrow.

import Foundation
import KindredAttention
import KindredAttentionMapping
import KindredCompute
import KindredEvaluation
import KindredModelFiles

extension PlanFile {
  /// Prints what the plan was made for and what each unit does.
  func printTables(name: String) {
    func text(_ model: PlannedModel) -> String {
      let heads = model.shape.attention
      return "\(model.name.onOneLine()), \(model.shape.layerCount) layers, \(heads.queryHeads) query heads, "
        + "\(heads.kvHeads) KV heads of \(heads.headDimension)"
    }
    let mapped = plan.mappedUnits.count
    print("\(name.onOneLine()): plan v\(Self.version), \(mapped) of \(plan.units.joined().count) units mapped")
    print("  large  \(text(large))")
    print("  small  \(small.map(text) ?? "none")")
    if let small {
      let depth = plan.lenderDepth
      print("         \(plan.lentHeads.count) heads in use, layers 0 to \(depth - 1) of \(small.shape.layerCount) run")
    }
    for (key, value) in notes.sorted(by: { $0.key < $1.key }) { print("  \(key.onOneLine())  \(value.onOneLine())") }
    print("\nUnits")
    let header = [["layer", "KV head", "near", "far", "small layer.head (mean weight)"]]
    printColumns(
      header
        + plan.units.enumerated().flatMap { layer, units in
          units.enumerated().map { group, unit in ["\(layer)", "\(group)"] + unit.cells }
        }, rightAligned: [0, 1])
  }
}

extension AttentionPlan.Unit {
  /// Near window, far source and its heads.
  fileprivate var cells: [String] {
    guard case .mapped(let near, let far) = self else { return ["all", "own", ""] }
    let window = near.map { $0.sinks > 0 ? "\($0.sinks) + \($0.positions)" : "\($0.positions)" } ?? "none"
    switch far {
    case .nothing: return [window, "nothing", ""]
    case .layer(let layer): return [window, "layer \(layer)", ""]
    case .small(let mixture):
      let heads = zip(mixture.heads, mixture.meanWeights).sorted { $0.1 > $1.1 }.map { head, weight in
        "\(head.layer).\(head.head) (\(Double(weight).formatted(digits: 2)))"
      }
      return [window, "small model", heads.joined(separator: ", ")]
    }
  }
}

extension HeadMixture {
  /// What each small head counts for the query heads, in the mean.
  fileprivate var meanWeights: [Float] {
    heads.indices.map { index in weights.reduce(0) { $0 + $1[index] } / Float(max(1, weights.count)) }
  }
}

/// What each unit of the large model borrows from each layer of the small one, as a picture.
struct PlanHeatMap {
  private let plan: PlanFile

  init(_ plan: PlanFile) { self.plan = plan }

  /// Draws an SVG file.
  ///
  /// - Throws: `FigureError` where gnuplot is missing or fails.
  func draw(to path: String) throws { try Gnuplot.draw(script, size: (720, 960), to: path) }

  /// Weights `[L · G][l]`: the mean over a unit's query heads, added up over the heads of a small layer.
  private var weights: [[Float]] {
    let layers = plan.small?.shape.layerCount ?? 1
    return plan.plan.units.joined().map { unit in
      var row = Array(repeating: Float(0), count: layers)
      if case .mapped(_, .small(let mixture)) = unit {
        for (head, weight) in zip(mixture.heads, mixture.meanWeights) { row[head.layer] += weight }
      }
      return row
    }
  }

  private var script: String {
    let groups = plan.large.shape.attention.kvHeads
    let rows = weights.map { $0.map { "\($0)" }.joined(separator: " ") }.joined(separator: "\n")
    return """
      set title 'What units borrow from the small model (a row without colour keeps its keys)'
      set xlabel 'small layer'
      set ylabel 'large layer'
      set cblabel 'weight'
      set palette defined (0 'white', 0.05 '#c6dbef', 1 '#08306b')
      set cbrange [0:1]
      set yrange [\(weights.count) - 0.5:-0.5]
      $weights << EOD
      \(rows)
      EOD
      set ytics ('0' 0\((1..<max(1, plan.large.shape.layerCount)).map { ", '\($0)' \($0 * groups)" }.joined()))
      plot $weights matrix with image notitle

      """
  }
}
