// The command-line tool `kindred`: argument parsing, calls into the library, printing.

import ArgumentParser

@main
struct KindredCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "kindred",
    abstract: "Runs large language models, and lets a small model lend its attention to a large one.",
    subcommands: [FetchCommand.self])
}
