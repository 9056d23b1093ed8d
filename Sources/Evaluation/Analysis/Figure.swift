// The figures of an analysis, as gnuplot scripts.

import Foundation

/// One figure: `<name>.svg`.
public struct Figure: Sendable {
  /// The file's name, without extension.
  public let name: String
  let script: String
  let size: (width: Int, height: Int)

  /// Draws the figure into a folder and returns the file's name.
  ///
  /// - Throws: ``FigureError``.
  public func draw(in folder: String) throws -> String {
    let file = "\(name).svg"
    try Gnuplot.draw(script, size: size, to: URL(fileURLWithPath: folder).appendingPathComponent(file).path)
    return file
  }

  /// A matrix as colours, its first row on top.
  ///
  /// - Parameters:
  ///   - matrix: `[rows][columns]`.
  ///   - labels: of columns and of rows.
  ///   - step: how many columns, and rows, make one unit of the labels.
  static func heatMap(
    _ name: String, title: String, matrix: [[Double]], labels: (x: String, y: String),
    step: (x: Int, y: Int) = (1, 1)
  ) -> Figure {
    let (rows, columns) = (matrix.count, matrix.first?.count ?? 0)
    let script = """
      set title \(quoted(title))
      set xlabel \(quoted(labels.x))
      set ylabel \(quoted(labels.y))
      set palette defined (0 'white', 0.5 '#6baed6', 1 '#08306b')
      set xrange [-0.5:\(columns) - 0.5]
      set yrange [\(rows) - 0.5:-0.5]
      set xtics (\(ticks(columns, step: step.x)))
      set ytics (\(ticks(rows, step: step.y)))
      \(dataBlock("cells", matrix))
      plot $cells matrix with image notitle

      """
    return Figure(name: name, script: script, size: (840, 720))
  }

  /// Several rows of figures over the same positions, as lines with points; `nil` leaves a gap.
  static func lines(
    _ name: String, title: String, x: [Double], series: [(name: String, values: [Double?])],
    labels: (x: String, y: String)
  ) -> Figure {
    let data = x.enumerated().map { index, position in [position] + series.map { $0.values[index] ?? .nan } }
    let plots = series.enumerated().map { index, series in
      "$lines using 1:\(index + 2) with linespoints linewidth 2 title \(quoted(series.name))"
    }
    let script = """
      set title \(quoted(title))
      set xlabel \(quoted(labels.x))
      set ylabel \(quoted(labels.y))
      set key outside below
      set grid
      set datafile missing 'nan'
      \(dataBlock("lines", data))
      plot \(plots.joined(separator: ", "))

      """
    return Figure(name: name, script: script, size: (840, 560))
  }

  /// A bar for each name.
  static func bars(
    _ name: String, title: String, bars: [(name: String, value: Double)], labels: (x: String, y: String)
  ) -> Figure {
    let script = """
      set title \(quoted(title))
      set xlabel \(quoted(labels.x))
      set ylabel \(quoted(labels.y))
      set style fill solid
      set boxwidth 0.8
      set yrange [0:*]
      set grid ytics
      set xtics rotate by -60 (\(bars.enumerated().map { "\(quoted($1.name)) \($0)" }.joined(separator: ", ")))
      \(dataBlock("bars", bars.enumerated().map { [Double($0), $1.value] }))
      plot $bars using 1:2 with boxes linecolor '#2171b5' notitle

      """
    return Figure(name: name, script: script, size: (840, 560))
  }

  private static func ticks(_ count: Int, step: Int) -> String {
    let units = count / step
    return stride(from: 0, to: units, by: max(1, units / 14)).map { "'\($0)' \($0 * step)" }.joined(separator: ", ")
  }

  /// A text as gnuplot reads it.
  private static func quoted(_ text: String) -> String { "'\(text.replacingOccurrences(of: "'", with: "''"))'" }

  private static func dataBlock(_ name: String, _ rows: [[Double]]) -> String {
    let lines = rows.map { $0.map { "\($0)" }.joined(separator: " ") }.joined(separator: "\n")
    return "$\(name) << EOD\n\(lines)\nEOD"
  }
}
