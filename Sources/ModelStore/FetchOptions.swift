// How a fetch behaves: which sources, whose token, how long to wait and how often to try again.

import Foundation

/// How a fetch behaves.
public struct FetchOptions: Sendable {
  /// The kinds of source to use; the manifest's order stays.
  public var sources: Set<ModelSource.Kind> = Set(ModelSource.Kind.allCases)
  /// Whether to compute the sum of files that are already there.
  public var verify = false
  /// Where the hub is: scheme, host and perhaps port.
  public var hubEndpoint: String
  /// The token sent to the hub, and to no other host.
  public var hubToken: String?
  /// The variables that pip and Python see.
  public var environment: [String: String]
  /// Waiting and repeating.
  package var patience = Patience()

  /// Options from the environment: `HF_ENDPOINT` and `HF_TOKEN`.
  public init(environment: [String: String] = ProcessInfo.processInfo.environment) {
    self.environment = environment
    let endpoint = environment["HF_ENDPOINT"] ?? ""
    hubEndpoint = endpoint.isEmpty ? "https://huggingface.co" : endpoint
    let token = environment["HF_TOKEN"]?.trimmingCharacters(in: .whitespacesAndNewlines) ?? ""
    hubToken = token.isEmpty ? nil : token
  }
}

/// How long a transfer waits, and how often it is tried again.
package struct Patience: Sendable {
  /// For a connection; short, so that an offline machine soon tries the next source.
  package var connect: Duration = .seconds(5)
  /// For the next byte.
  package var read: Duration = .seconds(30)
  /// Tries in a row that may bring less than ``progress`` bytes.
  package var attempts = 6
  /// Bytes that make a failed try count as progress, so that large files survive many interruptions.
  package var progress = 1 << 20
  /// The pause before the first repetition; it doubles with each.
  package var firstPause: Duration = .milliseconds(500)
  /// The longest pause, whatever the server asks for.
  package var longestPause: Duration = .seconds(60)

  package init() {}

  /// The pause after the `failures`-th failure in a row: exponential, with half of it left to chance so that
  /// many clients do not come back at once, and no shorter than what the server asked for.
  func pause(afterFailures failures: Int, serverAsks: Duration?) -> Duration {
    let exponential = firstPause * (1 << min(failures - 1, 16))
    let jittered = min(exponential, longestPause) * Double.random(in: 0.5...1)
    return min(max(jittered, serverAsks ?? .zero), longestPause)
  }
}
