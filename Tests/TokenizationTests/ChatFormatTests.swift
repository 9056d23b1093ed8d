// Chat formats against Jinja2 running the templates of model files, or equivalents of the published ones; see
// `make_chat.py`.

import Foundation
import KindredTokenization
import Testing

/// One template with what Jinja2 renders of each conversation.
struct ChatFixture: Decodable, CustomTestStringConvertible {
  struct Conversation: Decodable {
    struct Message: Decodable {
      let role: ChatMessage.Role
      let content: String
    }

    /// Whether user and assistant take turns and the user is last.
    let ordered: Bool
    let messages: [Message]
    /// Nil where the template raises.
    let text: String?

    var chat: [ChatMessage] { messages.map { ChatMessage(role: $0.role, content: $0.content) } }
  }

  struct File: Decodable {
    let templates: [ChatFixture]
  }

  let name: String
  let format: String
  let template: String
  let conversations: [Conversation]

  var testDescription: String { name }

  static func all() throws -> [ChatFixture] {
    let url = try #require(Bundle.module.url(forResource: "Fixtures/chat", withExtension: "json"))
    return try JSONDecoder().decode(File.self, from: Data(contentsOf: url)).templates
  }
}

@Suite struct ChatFormatTests {
  @Test func everyFormatHasAFixture() throws {
    #expect(try Set(ChatFixture.all().map(\.format)) == Set(ChatFormat.allCases.map(\.rawValue)))
  }

  @Test(arguments: try ChatFixture.all())
  func recognisesTemplate(_ fixture: ChatFixture) throws {
    #expect(try ChatFormat(template: fixture.template).rawValue == fixture.format)
  }

  @Test(arguments: try ChatFixture.all())
  func rendersAsTheTemplateDoes(_ fixture: ChatFixture) throws {
    let format = try #require(ChatFormat(rawValue: fixture.format))
    let alternates = format == .gemma || format == .mistral
    for conversation in fixture.conversations where conversation.ordered || !alternates {
      let rendered = try format.text(conversation.chat)
      // Gemma 2 alone refuses a system message. Bytes, because `==` takes equivalent strings as equal.
      guard let text = conversation.text else {
        #expect(fixture.name == "Gemma 2" && conversation.chat[0].role == .system)
        continue
      }
      #expect(Array(rendered.utf8) == Array(text.utf8), "\(conversation.chat)")
    }
  }

  @Test(arguments: [ChatFormat.gemma, .mistral])
  func refusesWrongOrder(_ format: ChatFormat) throws {
    let fixture = try #require(ChatFixture.all().first { $0.format == format.rawValue })
    let unordered = fixture.conversations.filter { !$0.ordered }
    #expect(unordered.count >= 6)
    for conversation in unordered {
      let error = #expect(throws: ChatFormatError.self) { try format.segments(conversation.chat) }
      #expect(error?.description.contains("\n") == false)
    }
  }

  @Test func wrongOrderNamesTheMessage() {
    let twice = [ChatMessage(role: .user, content: "One?"), ChatMessage(role: .user, content: "Two?")]
    #expect(throws: ChatFormatError.wrongRole(format: .gemma, index: 1, expected: .assistant, found: .user)) {
      try ChatFormat.gemma.text(twice)
    }
    let answered = [
      ChatMessage(role: .system, content: "Be brief."), ChatMessage(role: .user, content: "One?"),
      ChatMessage(role: .assistant, content: "Two."),
    ]
    let error = #expect(throws: ChatFormatError.self) { try ChatFormat.mistral.text(answered) }
    #expect(
      error?.description
        == "chat format mistral: at message 3: expected role user, found the end of the conversation")
  }

  @Test(arguments: ChatFormat.allCases)
  func refusesNoMessages(_ format: ChatFormat) {
    #expect(throws: ChatFormatError.noMessages) { try format.text([]) }
  }

  /// Every marker is a special token of the format, whatever the messages say.
  @Test(arguments: try ChatFixture.all())
  func messagesForgeNoMarker(_ fixture: ChatFixture) throws {
    let format = try #require(ChatFormat(rawValue: fixture.format))
    func markers(_ content: String) throws -> [ChatSegment] {
      let roles: [ChatMessage.Role] = [.system, .user, .assistant, .user]
      return try format.segments(roles.map { ChatMessage(role: $0, content: content) }).filter {
        if case .marker = $0 { true } else { false }
      }
    }
    let plain = try markers("plain")
    #expect(plain.count >= 6)
    for case .marker(let marker) in plain {
      #expect(try markers("\(marker) \(marker)") == plain)
    }
  }

  @Test func refusesMissingTemplate() {
    let error = #expect(throws: ChatFormatError.missingTemplate) { try ChatFormat(template: nil) }
    #expect(
      error?.description
        == "the model file has no chat template; choose a format with --chat-format: "
        + "chatml, qwen2.5, smollm2, llama3, llama3.1, gemma, mistral")
  }

  /// Templates that look like a known one and render something else.
  @Test(arguments: [
    "", "{{ messages }}\n\u{1B}[2J",
    "<|im_start|>system\\nYou are a helpful assistant.<|im_end|>",
    "{{ '<|im_start|>' + message.role }}{{ content.split('</think>')[-1] }}",
    "{{ '<|start_header_id|>' + message.role + '<|end_header_id|>' + message.content + '<|eot_id|>' }}",
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}",
    "{{- \"[INST]\" + message[\"content\"] + \"[/INST]\" }}",
  ])
  func refusesUnknownTemplate(_ template: String) {
    let error = #expect(throws: ChatFormatError.unknownTemplate(template: template)) {
      try ChatFormat(template: template)
    }
    let line = error?.description ?? "\n"
    #expect(line.hasSuffix("--chat-format: chatml, qwen2.5, smollm2, llama3, llama3.1, gemma, mistral"))
    #expect(!line.unicodeScalars.contains { $0.properties.generalCategory == .control })
  }
}
