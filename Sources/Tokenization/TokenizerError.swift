// What is wrong with a tokenizer file.

import KindredModelFiles

/// Why a tokenizer cannot be made.
public enum TokenizerError: Error, Sendable, CustomStringConvertible {
  /// The file is damaged, or lacks something.
  case file(ModelFileError)
  /// The file is sound but asks for what is not supported.
  case unsupported(path: String, field: String, expected: String, found: String)
  /// A pre-tokeniser's regular expression is refused.
  case pattern(path: String, PreTokenizerError)

  public var description: String {
    switch self {
    case .file(let error): error.description
    case .unsupported(let path, let field, let expected, let found):
      "\(path): \(field): expected \(expected), found \(found)"
    case .pattern(let path, let error): "\(path): pre-tokenizer: \(error)"
    }
  }
}

extension Tokenizer {
  /// Reads the tokenizer of a model.
  public init(file: ModelFile) throws(TokenizerError) {
    switch file {
    case .gguf(let gguf):
      try self.init(gguf: gguf)
    case .huggingFace(let folder):
      try self.init(huggingFace: folder)
    case .safetensors(let weights):
      throw .unsupported(
        path: weights.path, field: "tokenizer", expected: "a folder with tokenizer.json",
        found: "weights alone")
    }
  }
}

extension ChatFormat {
  /// The text of a model's chat template; `nil` where its file has none.
  public static func template(in file: ModelFile) throws(ModelFileError) -> String? {
    switch file {
    case .gguf(let gguf):
      return try gguf.stringIfPresent("tokenizer.chat_template")
    case .huggingFace(let folder):
      if let template = try folder.chatTemplate { return template }
      guard let path = folder.tokenizerConfigPath else { return nil }
      return try JSONNode(path: path).stringIfPresent("chat_template")
    case .safetensors:
      return nil
    }
  }

  /// The tokens of a conversation, up to where the assistant's answer begins. Messages cannot forge control tokens.
  public func tokens(_ messages: [ChatMessage], tokenizer: Tokenizer) throws(ChatFormatError) -> [Int32] {
    var tokens: [Int32] = []
    for segment in try segments(messages) {
      switch segment {
      case .marker(let text): tokens += tokenizer.encode(text, addsBOS: false)
      case .content(let text):
        tokens += tokenizer.encode(text, recognizesControlTokens: false, addsBOS: false)
      }
    }
    return tokens
  }
}
