// What a calibration has found so far (`JournalFile`), so that one that was interrupted goes on where it stopped and
// another budget need not measure again.

import Foundation

/// What is wrong with a calibration's input or journal.
public struct CalibrationError: Error, Sendable, Hashable, CustomStringConvertible {
  public let description: String
}

/// The predictions of the large model with some units mapped, over the scored rows of one window.
package struct PredictionSummary: Sendable, Codable, Equatable {
  /// Mean KL divergence from the unmapped model's predictions, in nats.
  package var divergence: Double
  /// Mean negative log-likelihood of the text, in nats.
  package var nll: Double
  /// `[rows, tokens + 1]`: logarithms of the probabilities of the tokens that the unmapped model finds most likely, and
  /// of all others together.
  package var logProbabilities: [Float]

  private enum CodingKeys: String, CodingKey {
    case divergence, nll
    case logProbabilities = "log_probabilities"
  }

  package init(divergence: Double, nll: Double, logProbabilities: [Float]) {
    self.divergence = divergence
    self.nll = nll
    self.logProbabilities = logProbabilities
  }

  package init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    divergence = try container.decode(Double.self, forKey: .divergence)
    nll = try container.decode(Double.self, forKey: .nll)
    let bytes = try container.decode(Data.self, forKey: .logProbabilities)
    logProbabilities = bytes.withUnsafeBytes { bytes in
      (0..<bytes.count / 4).map { Float(bitPattern: bytes.loadUnaligned(fromByteOffset: $0 * 4, as: UInt32.self)) }
    }
  }

  package func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(divergence, forKey: .divergence)
    try container.encode(nll, forKey: .nll)
    try container.encode(logProbabilities.withUnsafeBytes { Data($0) }, forKey: .logProbabilities)
  }
}

/// The findings of a calibration on disk.
package final class CalibrationJournal {
  /// What was measured: a window with a set of units mapped.
  package struct Measurement: Hashable, Codable {
    package var window: Int
    /// Ascending.
    package var units: [Int]
    /// The lengths of the units' near windows; `nil` where they are those of the options.
    package var lengths: [Int]?
  }

  private struct Header: Codable, Equatable {
    var format = "kindred-calibration"
    var version = 1
    /// A hash of all that findings depend on.
    var inputs: String
  }

  private enum Line: Codable {
    case header(Header)
    /// The mixtures of all units, `[layer][KV head]`.
    case fits([[MixtureFit]])
    case summary(Measurement, PredictionSummary)
  }

  /// The mixtures of all units, `[layer][KV head]`.
  private(set) var fits: [[MixtureFit]]?
  private var summaries: [Measurement: PredictionSummary] = [:]
  private let path: String
  private let file: JournalFile<Line>

  /// Where sums are kept until mixtures are solved from them: the number of windows that they hold, and the sums.
  private var sumsPath: String { path + ".sums" }

  /// Opens the journal at `path`, or starts one. A calibration's journal of other inputs is started anew.
  ///
  /// - Parameter inputs: a hash of all that findings depend on.
  package init(path: String, inputs: String) throws(CalibrationError) {
    self.path = path
    do throws(JournalError) {
      file = try JournalFile(path: path, header: .header(Header(inputs: inputs))) { line in
        if case .header(let other) = line { other.format == Header(inputs: "").format } else { false }
      }
    } catch { throw CalibrationError(description: error.description) }
    if file.isNew { try? FileManager.default.removeItem(atPath: sumsPath) }
    for line in file.found {
      switch line {
      case .header: break
      case .fits(let found): fits = found
      case .summary(let key, let summary): summaries[key] = summary
      }
    }
  }

  private func append(_ line: Line) throws(CalibrationError) {
    do throws(JournalError) { try file.append(line) } catch { throw CalibrationError(description: error.description) }
  }

  package subscript(_ measurement: Measurement) -> PredictionSummary? { summaries[measurement] }

  package func note(_ summary: PredictionSummary, of measurement: Measurement) throws(CalibrationError) {
    summaries[measurement] = summary
    try append(.summary(measurement, summary))
  }

  /// Notes the mixtures; the sums are then no longer needed.
  package func note(_ found: [[MixtureFit]]) throws(CalibrationError) {
    fits = found
    try append(.fits(found))
    try? FileManager.default.removeItem(atPath: sumsPath)
  }

  /// The sums of the first windows, and the number of these.
  package var sums: (windows: Int, data: Data)? {
    guard let content = FileManager.default.contents(atPath: sumsPath), content.count > 8 else { return nil }
    let windows = content.withUnsafeBytes { Int($0.loadUnaligned(as: UInt32.self)) }
    return (windows, content.dropFirst(8))
  }

  /// Keeps the sums of the first windows in place of those kept before.
  package func keep(sums: Data, windows: Int) throws(CalibrationError) {
    var content = withUnsafeBytes(of: (UInt32(windows), UInt32(0))) { Data($0) }
    content += sums
    do {
      try content.write(to: URL(fileURLWithPath: sumsPath), options: .atomic)
    } catch {
      throw CalibrationError(
        description: "\(sumsPath): the calibration's sums could not be written: \(error.localizedDescription)")
    }
  }
}
