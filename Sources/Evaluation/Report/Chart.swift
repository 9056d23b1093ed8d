// Charts as SVG inside a page: drawn here, so that a report needs no other program. Colours come from the page's style.

import Foundation

/// A chart and what it shows.
struct Chart {
  /// Colours that the page's style has for series; more series share them.
  static let seriesColors = 7

  enum Content {
    case lines(LineChart)
    case heatMap(HeatMap)
  }

  var caption: String
  var content: Content

  /// An `svg` element.
  var svg: String {
    switch content {
    case .lines(let chart): chart.svg(label: caption)
    case .heatMap(let map): map.svg(label: caption)
    }
  }
}

/// Points over a horizontal axis, joined or not.
struct LineChart {
  struct Point {
    var x: Double
    var y: Double
    /// The ends of an interval around `y`.
    var interval: (low: Double, high: Double)?
    /// Written beside the point.
    var label: String?
  }

  struct Series {
    var name: String
    var points: [Point]
    var isJoined = true
  }

  var xLabel: String
  var yLabel: String
  /// Names of the positions 0, 1, … in place of numbers.
  var categories: [String]?
  var series: [Series]

  init(xLabel: String, yLabel: String, categories: [String]? = nil, series: [Series]) {
    self.xLabel = xLabel
    self.yLabel = yLabel
    self.categories = categories
    self.series = series.map { series in
      var series = series
      series.points.removeAll { !$0.x.isDrawable || !$0.y.isDrawable }
      return series
    }.filter { !$0.points.isEmpty }
  }

  /// Whether there is nothing to draw.
  var isEmpty: Bool { series.isEmpty }

  private static let width = 760.0
  private static let plotHeight = 300.0
  private static let margins = (left: 74.0, right: 24.0, bottom: 52.0)

  fileprivate func svg(label: String) -> String {
    let legend = self.legend()
    let top = legend.height + 14
    let ends = series.flatMap { $0.points.flatMap { [$0.y, $0.interval?.low, $0.interval?.high].compactMap(\.self) } }
    let x = ChartAxis(
      series.flatMap { $0.points.map(\.x) }, pixels: Self.margins.left...Self.width - Self.margins.right)
    let y = ChartAxis(ends, pixels: top...top + Self.plotHeight, isReversed: true)
    let height = top + Self.plotHeight + Self.margins.bottom
    let drawn = series.enumerated().map { Self.draw($1, number: $0, x: x, y: y) }.joined()
    return SVG.element(width: Self.width, height: height, label: label) {
      legend.svg + axes(x, y, bottom: top + Self.plotHeight) + drawn
    }
  }

  private func legend() -> (svg: String, height: Double) {
    guard series.count > 1 else { return ("", 0) }
    var (left, top, svg) = (Self.margins.left, 14.0, "")
    for (number, series) in series.enumerated() {
      let width = 30 + SVG.width(of: series.name)
      if left + width > Self.width - Self.margins.right, left > Self.margins.left {
        (left, top) = (Self.margins.left, top + 20)
      }
      svg += SVG.marker(number, x: left + 6, y: top - 4) + SVG.text(series.name, x: left + 16, y: top)
      left += width
    }
    return (svg, top + 8)
  }

  private func axes(_ x: ChartAxis, _ y: ChartAxis, bottom: Double) -> String {
    var svg = ""
    for tick in y.ticks {
      svg += SVG.line(x.pixels.lowerBound, y.place(tick), x.pixels.upperBound, y.place(tick), kind: "grid")
      svg += SVG.text(y.text(tick), x: x.pixels.lowerBound - 8, y: y.place(tick) + 4, anchor: "end", kind: "soft")
    }
    let names = categories.map { names in
      // As many names as fit beside each other.
      let widest = names.map(SVG.width).max() ?? 1
      let needed = Double(names.count) * (widest + 10) / (x.pixels.upperBound - x.pixels.lowerBound)
      let step = max(1, Int(needed.rounded(.up)))
      return stride(from: 0, to: names.count, by: step).map { (Double($0), names[$0]) }
    }
    for (value, name) in names ?? x.ticks.map({ ($0, x.text($0)) }) {
      svg += SVG.line(x.place(value), bottom, x.place(value), bottom + 5, kind: "axis")
      svg += SVG.text(name, x: x.place(value), y: bottom + 19, anchor: "middle", kind: "soft")
    }
    svg += SVG.line(x.pixels.lowerBound, bottom, x.pixels.upperBound, bottom, kind: "axis")
    svg += SVG.text(
      xLabel, x: (x.pixels.lowerBound + x.pixels.upperBound) / 2, y: bottom + 42, anchor: "middle")
    let middle = (y.pixels.lowerBound + y.pixels.upperBound) / 2
    return svg + SVG.text(yLabel, x: 16, y: middle, anchor: "middle", rotated: true)
  }

  private static func draw(_ series: Series, number: Int, x: ChartAxis, y: ChartAxis) -> String {
    let color = number % Chart.seriesColors
    var svg = ""
    if series.isJoined, series.points.count > 1 {
      let points = series.points.map { "\(SVG.number(x.place($0.x))),\(SVG.number(y.place($0.y)))" }
      svg += "<polyline class=\"line s\(color)\" points=\"\(points.joined(separator: " "))\"/>\n"
    }
    for point in series.points {
      let (left, top) = (x.place(point.x), y.place(point.y))
      if let interval = point.interval, interval.low.isDrawable, interval.high.isDrawable {
        svg += SVG.line(left, y.place(interval.low), left, y.place(interval.high), kind: "whisker s\(color)")
      }
      svg += SVG.marker(number, x: left, y: top, title: "\(series.name): \(x.text(point.x)), \(y.text(point.y))")
      // Not all series on one side: labels of neighbours would lie on each other.
      let offset = (number / 2).isMultiple(of: 2) ? 16.0 : -6
      if let label = point.label { svg += SVG.text(label, x: left + 8, y: top + offset, kind: "soft") }
    }
    return svg
  }
}

/// A scale from values to pixels with ticks at round numbers.
struct ChartAxis {
  let pixels: ClosedRange<Double>
  let ticks: [Double]
  private let values: (low: Double, high: Double)
  private let isReversed: Bool
  private let decimals: Int

  /// - Parameter values: what has to have a place.
  init(_ values: [Double], pixels: ClosedRange<Double>, isReversed: Bool = false) {
    let drawable = values.filter(\.isDrawable)
    var (low, high) = (drawable.min() ?? 0, drawable.max() ?? 1)
    let span = high - low
    let margin = span > max(abs(high) * 1e-9, 1e-12) ? 0.07 * span : max(abs(high) * 0.1, 1e-6)
    // An axis of what cannot be negative has no negative numbers.
    low = low >= 0 ? max(0, low - margin) : low - margin
    high += margin
    let step = Self.roundStep((high - low) / 6)
    let first = (low / step).rounded(.up)
    ticks = (0...12).map { (first + Double($0)) * step }.filter { $0 <= high }
    decimals = max(0, Int((-log10(step)).rounded(.up)))
    self.values = (low, high)
    self.pixels = pixels
    self.isReversed = isReversed
  }

  /// The least of 1, 2 and 5 times a power of ten that is not below a number.
  private static func roundStep(_ least: Double) -> Double {
    let power = pow(10, log10(least).rounded(.down))
    return [1, 2, 5].map { $0 * power }.first { $0 >= least } ?? 10 * power
  }

  func place(_ value: Double) -> Double {
    let share = min(1, max(0, (value - values.low) / (values.high - values.low)))
    return pixels.lowerBound + (isReversed ? 1 - share : share) * (pixels.upperBound - pixels.lowerBound)
  }

  func text(_ value: Double) -> String {
    decimals > 6 || abs(value) >= 1e7 ? String(format: "%.2g", value) : String(format: "%.\(decimals)f", value)
  }
}

extension Double {
  /// Whether the number, and differences of such, are finite.
  var isDrawable: Bool { isFinite && abs(self) < 1e100 }
}
