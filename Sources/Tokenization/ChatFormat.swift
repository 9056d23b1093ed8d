// Chat formats: a conversation becomes the text that a model was instructed with.
//
// Model files carry their format as a Jinja template. Running templates would take an interpreter for code
// that nobody vouches for; instead this recognises the few published templates and renders what they render
// without tools. A template not recognised is refused, never guessed.
//
// Checked in `ChatFormatTests` byte for byte against Jinja2 with the settings of `transformers`.

import KindredModelFiles

/// One message of a conversation.
public struct ChatMessage: Sendable, Hashable {
  /// Who speaks.
  public enum Role: String, Sendable, Codable {
    case system, user, assistant
  }

  /// Who speaks.
  public var role: Role
  /// What is said, without the format's marks.
  public var content: String

  public init(role: Role, content: String) {
    self.role = role
    self.content = content
  }
}

/// A part of a rendered prompt.
///
/// Text that touches a message belongs to the message's `.content`, so that a tokenizer which takes the parts
/// one by one still merges across that border, and gives the tokens it would give for the whole text.
public enum ChatSegment: Sendable, Hashable {
  /// Special tokens and nothing else.
  case marker(String)
  /// Plain text, in which the spelling of a special token is only text: a message cannot forge a turn.
  case content(String)
}

/// Why a conversation cannot be rendered.
public enum ChatFormatError: Error, Sendable, Hashable, CustomStringConvertible {
  /// The model file holds no template.
  case missingTemplate
  /// The template is none that Kindred knows; `template` is its text.
  case unknownTemplate(template: String)
  /// There is nothing to answer.
  case noMessages
  /// At the message with this index the format has room for `expected` only; `found` is nil at the end of the
  /// conversation.
  case wrongRole(format: ChatFormat, index: Int, expected: ChatMessage.Role, found: ChatMessage.Role?)

  public var description: String {
    switch self {
    case .missingTemplate:
      "the model file has no chat template; choose a format with --chat-format: \(Self.choices)"
    case .unknownTemplate(let template):
      "unknown chat template \(template.quoted(limit: 60)); "
        + "choose a format with --chat-format: \(Self.choices)"
    case .noMessages:
      "expected at least one message, found none"
    case .wrongRole(let format, let index, let expected, let found):
      "chat format \(format.rawValue): at message \(index): expected role \(expected.rawValue), "
        + "found \(found?.rawValue ?? "the end of the conversation")"
    }
  }

  private static var choices: String { ChatFormat.allCases.map(\.rawValue).joined(separator: ", ") }
}

/// How a family of models marks the turns of a conversation. Raw values are those of `--chat-format`.
public enum ChatFormat: String, Sendable, CaseIterable {
  /// ChatML with no system message of its own.
  case chatML = "chatml"
  /// ChatML as Qwen2.5 and Qwen2.5-Coder use it: with a default system message.
  case qwen25 = "qwen2.5"
  /// ChatML as SmolLM2 uses it: with a default system message.
  case smolLM2 = "smollm2"
  /// Llama 3. Contents are trimmed.
  case llama3
  /// Llama 3.1 to 3.3: Llama 3 with a system message that opens with dates. "Today" stays at the template's
  /// own default, 26 Jul 2024, so that equal conversations make equal prompts on every day.
  case llama31 = "llama3.1"
  /// Gemma 3. The system message opens the first user turn; contents are trimmed. Gemma 1 and 2 differ only
  /// in refusing a system message.
  case gemma
  /// Mistral 7B Instruct v0.3 with the template of late 2024: the system message opens the last user turn.
  case mistral

  /// Recognises the format from a Jinja template's text.
  ///
  /// - Throws: `missingTemplate` for nil, `unknownTemplate` for one that may render something else.
  public init(template: String?) throws(ChatFormatError) {
    guard let template else { throw .missingTemplate }
    let match = Self.allCases.first { format in
      let signature = format.signature
      return signature.present.allSatisfy { template.contains($0) }
        && !signature.absent.contains { template.contains($0) }
    }
    guard let match else { throw .unknownTemplate(template: template) }
    self = match
  }

  /// What a template of this format contains, and what would make it another one. Line breaks are avoided:
  /// templates spell them as `\n` or as themselves.
  private var signature: (present: [String], absent: [String]) {
    switch self {
    case .chatML: (["<|im_start|>"], ["You are", "<|im_start|>system", "bos_token", "trim", "think>"])
    case .qwen25, .smolLM2: (["<|im_start|>", defaultSystemMessage ?? ""], ["bos_token", "trim", "think>"])
    case .llama3: (["<|start_header_id|>", "<|eot_id|>", "trim"], ["You are", Self.knowledgeDate])
    case .llama31: (["<|start_header_id|>", "<|eot_id|>", "trim", Self.knowledgeDate], ["You are"])
    case .gemma: (["<start_of_turn>", "<end_of_turn>", "trim"], ["You are"])
    case .mistral: ([#""[INST] " + system_message"#, #"message["content"]|trim + eos_token"#], ["You are"])
    }
  }

  /// The system message of a conversation that brings none.
  private var defaultSystemMessage: String? {
    switch self {
    case .qwen25: "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    case .smolLM2: "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    default: nil
    }
  }

  private static let knowledgeDate = "Cutting Knowledge Date"
}

extension ChatFormat {
  /// The segments of a conversation, ending where the assistant's answer begins. The token that begins a
  /// sequence (`<s>` and the like) is the first of them where the format has one.
  ///
  /// Gemma and Mistral want the roles user and assistant in turn after at most one system message, and a
  /// user's message last; where their templates would drop a system message instead, this throws. The other
  /// formats take any order, as their templates do.
  ///
  /// - Throws: `noMessages`, `wrongRole`.
  public func segments(_ messages: [ChatMessage]) throws(ChatFormatError) -> [ChatSegment] {
    guard let first = messages.first else { throw .noMessages }
    let system = first.role == .system ? first.content : nil
    let turns = system == nil ? messages[...] : messages.dropFirst()
    switch self {
    case .chatML, .qwen25, .smolLM2:
      return chatML(system: system ?? defaultSystemMessage, turns: turns)
    case .llama3:
      return llama3(system: system?.trimmed, turns: turns)
    case .llama31:
      let dates = "\(Self.knowledgeDate): December 2023\nToday Date: 26 Jul 2024\n\n"
      return llama3(system: dates + (system ?? "").trimmed, turns: turns)
    case .gemma:
      try checkAlternation(turns)
      return gemma(system: system, turns: turns)
    case .mistral:
      try checkAlternation(turns)
      return mistral(system: system, turns: turns)
    }
  }

  /// The segments of a conversation as one text, as `apply_chat_template` of `transformers` gives it.
  ///
  /// For reading and comparing; tokenize ``segments(_:)`` instead, or a message can forge a turn.
  ///
  /// - Throws: `noMessages`, `wrongRole`.
  public func text(_ messages: [ChatMessage]) throws(ChatFormatError) -> String {
    try segments(messages).map { segment in
      switch segment {
      case .marker(let text), .content(let text): text
      }
    }.joined()
  }
}

extension ChatFormat {
  private typealias Role = ChatMessage.Role

  private func chatML(system: String?, turns: ArraySlice<ChatMessage>) -> [ChatSegment] {
    var prompt = PromptBuilder()
    func turn(_ role: Role, _ content: String) {
      prompt.marker("<|im_start|>")
      prompt.content("\(role.rawValue)\n\(content)")
      prompt.marker("<|im_end|>")
      prompt.content("\n")
    }
    if let system { turn(.system, system) }
    for message in turns { turn(message.role, message.content) }
    prompt.marker("<|im_start|>")
    prompt.content("\(Role.assistant.rawValue)\n")
    return prompt.segments
  }

  private func llama3(system: String?, turns: ArraySlice<ChatMessage>) -> [ChatSegment] {
    var prompt = PromptBuilder()
    func header(_ role: Role) {
      prompt.marker("<|start_header_id|>")
      prompt.content(role.rawValue)
      prompt.marker("<|end_header_id|>")
    }
    func turn(_ role: Role, _ content: String) {
      header(role)
      prompt.content("\n\n\(content)")
      prompt.marker("<|eot_id|>")
    }
    prompt.marker("<|begin_of_text|>")
    if let system { turn(.system, system) }
    for message in turns { turn(message.role, message.content.trimmed) }
    header(.assistant)
    prompt.content("\n\n")
    return prompt.segments
  }

  private func gemma(system: String?, turns: ArraySlice<ChatMessage>) -> [ChatSegment] {
    var prompt = PromptBuilder()
    prompt.marker("<bos>")
    // The template trims the messages but not the system message, of which its two line breaks are a part.
    var opening = system.map { "\($0)\n\n" } ?? ""
    for message in turns {
      prompt.marker("<start_of_turn>")
      let role = message.role == .assistant ? "model" : message.role.rawValue
      prompt.content("\(role)\n\(opening)\(message.content.trimmed)")
      prompt.marker("<end_of_turn>")
      prompt.content("\n")
      opening = ""
    }
    prompt.marker("<start_of_turn>")
    prompt.content("model\n")
    return prompt.segments
  }

  private func mistral(system: String?, turns: ArraySlice<ChatMessage>) -> [ChatSegment] {
    var prompt = PromptBuilder()
    prompt.marker("<s>")
    for (index, message) in zip(turns.indices, turns) {
      if message.role == .assistant {
        prompt.content(" \(message.content.trimmed)")
        prompt.marker("</s>")
      } else {
        let isLast = index == turns.endIndex - 1
        let opening = isLast ? system.map { "\($0)\n\n" } ?? "" : ""
        prompt.marker("[INST]")
        prompt.content(" \(opening)\(message.content)")
        prompt.marker("[/INST]")
      }
    }
    return prompt.segments
  }

  /// Checks that `turns` go user, assistant, …, user; their indices are those in the conversation.
  private func checkAlternation(_ turns: ArraySlice<ChatMessage>) throws(ChatFormatError) {
    var expected = Role.user
    for (index, message) in zip(turns.indices, turns) {
      guard message.role == expected else {
        throw .wrongRole(format: self, index: index, expected: expected, found: message.role)
      }
      expected = expected == .user ? .assistant : .user
    }
    guard expected == .assistant else {
      throw .wrongRole(format: self, index: turns.endIndex, expected: .user, found: nil)
    }
  }
}

/// Collects segments.
private struct PromptBuilder {
  private(set) var segments: [ChatSegment] = []

  mutating func marker(_ text: String) { segments.append(.marker(text)) }
  mutating func content(_ text: String) { segments.append(.content(text)) }
}

extension String {
  /// This text without the white space at both ends, as Jinja's `trim` (Python's `str.strip`) sees it.
  fileprivate var trimmed: String {
    func isSpace(_ scalar: Unicode.Scalar) -> Bool {
      // Python counts the four ASCII separators, Unicode's White_Space does not.
      scalar.properties.isWhitespace || (0x1C...0x1F).contains(scalar.value)
    }
    // By scalar: a combining mark after a space must not make the space count as a letter.
    let scalars = unicodeScalars
    guard let start = scalars.firstIndex(where: { !isSpace($0) }),
      let last = scalars.lastIndex(where: { !isSpace($0) })
    else { return "" }
    return String(scalars[start...last])
  }
}
