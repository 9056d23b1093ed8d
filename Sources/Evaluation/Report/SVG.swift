// The few elements that charts are made of. Every text is escaped here, every number finite.

import Foundation

/// Writes SVG elements.
enum SVG {
  static func element(width: Double, height: Double, label: String, _ content: () -> String) -> String {
    "<svg viewBox=\"0 0 \(number(width)) \(number(height))\" role=\"img\" "
      + "aria-label=\"\(HTMLWriter.escaped(label))\">\n\(content())</svg>\n"
  }

  /// A number of pixels, to a hundredth.
  static func number(_ value: Double) -> String {
    let rounded = (value * 100).rounded() / 100
    return rounded == rounded.rounded() ? "\(Int(rounded))" : String(format: "%.2f", rounded)
  }

  /// About how wide a text is, in pixels.
  static func width(of text: String) -> Double { 7 * Double(min(text.count, 200)) }

  static func line(_ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double, kind: String) -> String {
    "<line class=\"\(kind)\" x1=\"\(number(x1))\" y1=\"\(number(y1))\" x2=\"\(number(x2))\" y2=\"\(number(y2))\"/>\n"
  }

  static func text(
    _ text: String, x: Double, y: Double, anchor: String? = nil, kind: String? = nil, rotated: Bool = false
  ) -> String {
    let turn = rotated ? " transform=\"rotate(-90 \(number(x)) \(number(y)))\"" : ""
    let place = anchor.map { " text-anchor=\"\($0)\"" } ?? ""
    let look = kind.map { " class=\"\($0)\"" } ?? ""
    return "<text x=\"\(number(x))\" y=\"\(number(y))\"\(place)\(look)\(turn)>\(HTMLWriter.escaped(text))</text>\n"
  }

  /// The marker of a series: a circle, square, triangle or diamond.
  static func marker(_ series: Int, x: Double, y: Double, title: String? = nil) -> String {
    let shapes = [
      [(-4.5, -4.5), (4.5, -4.5), (4.5, 4.5), (-4.5, 4.5)], [(0, -5.5), (5.5, 4.5), (-5.5, 4.5)],
      [(0, -6), (6, 0), (0, 6), (-6, 0)],
    ]
    let look = "class=\"m\(series % Chart.seriesColors)\""
    let tip = title.map { "<title>\(HTMLWriter.escaped($0))</title>" } ?? ""
    guard series % 4 > 0 else {
      return "<circle \(look) cx=\"\(number(x))\" cy=\"\(number(y))\" r=\"4.5\">\(tip)</circle>\n"
    }
    let points = shapes[series % 4 - 1].map { "\(number(x + $0.0)),\(number(y + $0.1))" }
    return "<polygon \(look) points=\"\(points.joined(separator: " "))\">\(tip)</polygon>\n"
  }
}
