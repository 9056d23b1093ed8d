// Numbers as people read them.

import Foundation

/// How reports write numbers.
enum NumberText {
  /// Shown where there is no number.
  static let none = "–"

  /// A number with at least `digits` significant digits, none of them behind the point where that many stand before it.
  static func significant(_ value: Double?, digits: Int = 3) -> String {
    guard let value, value.isFinite else { return none }
    guard value != 0 else { return "0" }
    let magnitude = Int(log10(abs(value)).rounded(.down))
    guard (-5...15).contains(magnitude) else { return String(format: "%.\(digits - 1)e", value) }
    return String(format: "%.\(max(0, digits - 1 - magnitude))f", value)
  }

  /// `12.3 MB`, in powers of ten.
  static func bytes(_ value: Double?) -> String {
    guard let value, value.isFinite else { return none }
    var (number, unit) = (value, 0)
    let units = ["B", "kB", "MB", "GB", "TB", "PB"]
    while abs(number) >= 999.5, unit + 1 < units.count { (number, unit) = (number / 1000, unit + 1) }
    return "\(significant(number)) \(units[unit])"
  }

  /// A share as `12.3%`.
  static func percent(_ share: Double?, digits: Int = 1) -> String {
    guard let share, share.isFinite else { return none }
    return String(format: "%.\(digits)f%%", share * 100)
  }

  /// How many times: `1.52×`.
  static func times(_ factor: Double?) -> String {
    guard let factor, factor.isFinite else { return none }
    return significant(factor, digits: 3) + "×"
  }
}

extension MedianAndRange {
  /// `1.23 (1.20–1.31)`, or the number alone where there is no range.
  func text(factor: Double = 1, suffix: String = "") -> String {
    let figures = [median, minimum, maximum].map { NumberText.significant($0 * factor) }
    return figures[0] + suffix + (minimum == maximum ? "" : " (\(figures[1])–\(figures[2]))")
  }
}
