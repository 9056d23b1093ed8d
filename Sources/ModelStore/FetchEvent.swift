// What a fetch tells while it runs, and what it leaves.

/// What a fetch tells its caller while it runs.
public enum FetchEvent: Sendable, Equatable {
  /// The state of the transfer of one file; at most ten a second.
  case progress(FetchProgress)
  /// Something worth a line of its own: a source that failed, a sum being checked.
  case notice(String)
}

/// The state of the transfer of one file.
public struct FetchProgress: Sendable, Equatable {
  /// The file's name.
  public let file: String
  /// Bytes in the part file, those of former tries included.
  public let bytes: Int
  /// Bytes of the whole file, where known.
  public let totalBytes: Int?
  /// The mean rate of this try.
  public let bytesPerSecond: Double
  /// Seconds to the end at this rate, where both are known.
  public let secondsLeft: Double?
}

/// A model in the store after a fetch.
public struct FetchedModel: Sendable, Equatable, Codable {
  /// How the model came to be there.
  public enum Status: String, Sendable, Codable {
    /// It was there, with the right size.
    case present
    /// It was there, and its sum was computed and found right.
    case verified
    /// It has been downloaded and checked.
    case fetched
  }

  /// The name that was asked for: a manifest name or `hf:OWNER/REPO[:FILE]`.
  public let name: String
  /// The file, or the folder of a repository with several files.
  public let path: String
  /// Bytes of all its files.
  public let bytes: Int
  /// How it came to be there.
  public let status: Status
  /// The source that gave it, or the rest of it; nil where it was there.
  public let source: ModelSource.Kind?
}

/// Turns byte counts into progress events, with a rate and no more than ten events a second.
struct ProgressMeter {
  private let file: String
  private let report: @Sendable (FetchEvent) -> Void
  private let start = ContinuousClock.now
  private let startBytes: Int
  private var last: ContinuousClock.Instant?

  init(file: String, startBytes: Int, report: @escaping @Sendable (FetchEvent) -> Void) {
    self.file = file
    self.startBytes = startBytes
    self.report = report
  }

  /// Tells the state, unless it was told less than a tenth of a second ago and is not the last.
  mutating func update(bytes: Int, total: Int?) {
    let now = ContinuousClock.now
    if let last, now - last < .milliseconds(100), bytes != total { return }
    last = now
    let rate = Double(max(0, bytes - startBytes)) / max((now - start) / .seconds(1), 1e-3)
    let left = total.flatMap { rate > 0 ? Double($0 - bytes) / rate : nil }
    report(
      .progress(
        FetchProgress(file: file, bytes: bytes, totalBytes: total, bytesPerSecond: rate, secondsLeft: left)))
  }
}
