// A matrix as colours.

import Foundation

/// A matrix whose cells are the stronger coloured the larger they are; the first row is on top.
struct HeatMap {
  var xLabel: String
  var yLabel: String
  var columnNames: [String]
  var rowNames: [String]
  /// `[rows][columns]`; `nil` stays empty.
  var values: [[Double?]]
  /// The values of the weakest and the strongest colour.
  private let range: ClosedRange<Double>

  /// - Parameter range: the values of the weakest and the strongest colour; the least and the largest, where `nil`.
  init(
    xLabel: String, yLabel: String, columnNames: [String], rowNames: [String], values: [[Double?]],
    range: ClosedRange<Double>? = nil
  ) {
    self.xLabel = xLabel
    self.yLabel = yLabel
    self.columnNames = columnNames
    self.rowNames = rowNames
    self.values = values.map { $0.map { $0.flatMap { $0.isDrawable ? $0 : nil } } }
    let found = self.values.joined().compactMap(\.self)
    self.range = range ?? (found.min() ?? 0)...(found.max() ?? 1)
  }

  /// The most cells whose value is written into them.
  private static let mostWrittenCells = 150
  private static let levels = 24
  private static let width = 760.0

  func svg(label: String) -> String {
    let (rows, columns) = (values.count, columnNames.count)
    let (low, high) = (range.lowerBound, range.upperBound)
    let left = 40 + (rowNames.map(SVG.width).max() ?? 0)
    let plotWidth = Self.width - left - 100
    let cellWidth = plotWidth / Double(max(1, columns))
    let isWritten = rows * columns <= Self.mostWrittenCells
    let cellHeight = isWritten ? 30 : min(cellWidth, 520 / Double(max(1, rows)))
    let (top, plotHeight) = (12.0, cellHeight * Double(rows))
    return SVG.element(width: Self.width, height: max(top + plotHeight + 52, 200), label: label) {
      let place = "translate(\(SVG.number(left)) \(SVG.number(top)))"
      let frame = "\(place) scale(\(SVG.number(cellWidth)) \(SVG.number(cellHeight)))"
      var svg = "<g transform=\"\(frame)\">\n\(cells(low: low, high: high))</g>\n"
      if isWritten {
        svg += written(low: low, high: high) { row, column in
          (left + (Double(column) + 0.5) * cellWidth, top + (Double(row) + 0.5) * cellHeight + 4)
        }
      }
      for (row, name) in Self.spread(rowNames, space: plotHeight, each: 14) {
        svg += SVG.text(name, x: left - 6, y: top + (Double(row) + 0.5) * cellHeight + 4, anchor: "end", kind: "soft")
      }
      let widest = (columnNames.map(SVG.width).max() ?? 1) + 8
      for (column, name) in Self.spread(columnNames, space: plotWidth, each: widest) {
        let center = left + (Double(column) + 0.5) * cellWidth
        svg += SVG.text(name, x: center, y: top + plotHeight + 16, anchor: "middle", kind: "soft")
      }
      svg += SVG.text(xLabel, x: left + plotWidth / 2, y: top + plotHeight + 40, anchor: "middle")
      svg += SVG.text(yLabel, x: 14, y: top + plotHeight / 2, anchor: "middle", rotated: true)
      return svg + Self.scale(low: low, high: high, x: left + plotWidth + 24, y: top)
    }
  }

  /// How strong a value is coloured, 0…1.
  private static func strength(_ value: Double, low: Double, high: Double) -> Double {
    high > low ? 0.06 + 0.94 * min(1, max(0, (value - low) / (high - low))) : 0.5
  }

  /// One path for each strength, in units of cells: large matrices stay small this way.
  private func cells(low: Double, high: Double) -> String {
    var paths = Array(repeating: "", count: Self.levels + 1)
    for (row, line) in values.enumerated() {
      let levels = line.map { $0.map { Int(Self.strength($0, low: low, high: high) * Double(Self.levels)) } }
      var start = 0
      while start < levels.count {
        let end = levels[start...].firstIndex { $0 != levels[start] } ?? levels.count
        if let level = levels[start] { paths[level] += "M\(start) \(row)h\(end - start)v1h-\(end - start)z" }
        start = end
      }
    }
    return paths.enumerated().filter { !$1.isEmpty }.map { level, path in
      "<path class=\"heat\" fill-opacity=\"\(SVG.number(Double(level) / Double(Self.levels)))\" d=\"\(path)\"/>\n"
    }.joined()
  }

  private func written(low: Double, high: Double, place: (Int, Int) -> (Double, Double)) -> String {
    values.enumerated().flatMap { row, line in
      line.enumerated().compactMap { column, value -> String? in
        guard let value else { return nil }
        let (x, y) = place(row, column)
        let isStrong = Self.strength(value, low: low, high: high) > 0.55
        return SVG.text(NumberText.significant(value), x: x, y: y, anchor: "middle", kind: isStrong ? "onheat" : nil)
      }
    }.joined()
  }

  /// Names that have room, with their numbers.
  private static func spread(_ names: [String], space: Double, each: Double) -> [(Int, String)] {
    let step = max(1, Int((Double(names.count) * each / max(space, 1)).rounded(.up)))
    return stride(from: 0, to: names.count, by: step).map { ($0, names[$0]) }
  }

  private static func scale(low: Double, high: Double, x: Double, y: Double) -> String {
    let count = 6
    return (0..<count).map { index in
      let value = high - (high - low) * Double(index) / Double(count - 1)
      let top = y + Double(index) * 22
      let opacity = SVG.number(strength(value, low: low, high: high))
      return "<rect class=\"heat\" fill-opacity=\"\(opacity)\" x=\"\(SVG.number(x))\" y=\"\(SVG.number(top))\" "
        + "width=\"18\" height=\"22\"/>\n"
        + SVG.text(NumberText.significant(value), x: x + 24, y: top + 15, kind: "soft")
    }.joined()
  }
}
