// The command-line tool `kindred`: argument parsing, calls into the library, printing.

import ArgumentParser
import Foundation
import Kindred

@main
struct KindredCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "kindred",
    abstract: "Runs large language models, and lets a small model lend its attention to a large one.",
    discussion: """
      A MODEL is a GGUF file, a Hugging Face folder, a model from the store (kindred fetch --list), or \
      random:SHAPE for random weights of a published shape. Every command takes --json: one JSON object as the \
      last line of standard output. Exit codes: 0, 1 for an error, 64 for wrong usage.

      Start with:
        kindred fetch qwen2.5-coder
        kindred generate -m qwen2.5-coder-1.5b -s qwen2.5-coder-0.5b -p "def fibonacci(n):"
      """,
    version: kindredVersion,
    subcommands: [
      FetchCommand.self, GenerateCommand.self, ChatCommand.self, CalibrateCommand.self, EvaluateCommand.self,
      AnalyzeCommand.self, BenchCommand.self, ReportCommand.self, InspectCommand.self,
    ])

  /// Runs the command; an error is one line on standard error.
  static func main() async {
    openClosedStreams()
    unblockSignals()
    do {
      var command = try parseAsRoot()
      if var asynchronous = command as? any AsyncParsableCommand {
        try await asynchronous.run()
      } else {
        try command.run()
      }
      try finishOutput()
    } catch {
      switch exitCode(for: error) {
      case .success: exit(withError: error)
      case .validationFailure: fail("\(message(for: error)) (see --help)", code: .validationFailure)
      case let code: fail("\(error)", code: code)
      }
    }
  }

  private static func fail(_ message: String, code: ExitCode) -> Never {
    standardError("kindred: \(message)\n")
    Foundation.exit(code.rawValue)
  }
}
