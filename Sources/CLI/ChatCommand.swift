// `kindred chat`: a conversation, each turn reusing the KV cache of those before.

import ArgumentParser
import Foundation
import Kindred

struct ChatCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "chat",
    abstract: "Holds a conversation.",
    discussion: """
      Reads a message per line from standard input. Ctrl-C ends an answer; Ctrl-D, or Ctrl-C at the prompt, the \
      conversation. With --json each answer is one JSON object on a line.
      """)

  @OptionGroup var models: ModelOptions
  @OptionGroup var sampling: SamplingArguments

  @Option(help: "The system message.")
  var system: String?

  @Option(help: "The chat format, where the model's own is not recognised.")
  var chatFormat: ChatFormat?

  @Flag(help: "Print one JSON object for each answer.")
  var json = false

  func run() throws {
    let loaded = try models.load()
    guard let tokenizer = loaded.large.tokenizer else { throw PromptError.noTokenizer(model: loaded.large.name) }
    let format = try chatFormat ?? ChatFormat(template: loaded.large.chatTemplate)
    let session = try loaded.session()
    var messages = system.map { [ChatMessage(role: .system, content: $0)] } ?? []
    let isTerminal = isatty(STDIN_FILENO) == 1
    while true {
      if isTerminal { standardError("> ") }
      guard let message = readLine() else { break }
      if message.isEmpty { continue }
      messages.append(ChatMessage(role: .user, content: message))
      let answer = try answer(to: messages, format: format, session: session, tokenizer: tokenizer, loaded: loaded)
      messages.append(ChatMessage(role: .assistant, content: answer))
    }
    if isTerminal { standardError("\n") }
  }

  private func answer(
    to messages: [ChatMessage], format: ChatFormat, session: Session<CPUBackend>, tokenizer: Tokenizer,
    loaded: LoadedModels<CPUBackend>
  ) throws -> String {
    let cancelled = CancellationFlag()
    let interrupts = InterruptHandler { cancelled.set() }
    defer { withExtendedLifetime(interrupts) {} }
    var text = ""
    let statistics = try TextGeneration(session: session, tokenizer: tokenizer, options: sampling.options).run(
      try format.tokens(messages, tokenizer: tokenizer), isCancelled: { cancelled.isSet },
      onText: { piece in
        text += piece
        if !json { try standardOutput(piece) }
      })
    if json {
      try printJSON(Joined(["text": text], Joined(statistics, loaded.conditions)))
    } else {
      print()
      standardError(statistics.summary)
    }
    return text
  }
}

extension ChatFormat: ExpressibleByArgument {}
