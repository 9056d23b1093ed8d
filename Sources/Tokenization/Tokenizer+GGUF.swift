// A tokenizer from the metadata of a GGUF file (`tokenizer.ggml.*`).

import KindredModelFiles

extension Tokenizer {
  /// Reads the tokenizer of a GGUF file: models `gpt2` (byte-level BPE) and `llama` (SentencePiece's BPE).
  public init(gguf file: GGUFFile) throws(TokenizerError) {
    do throws(ModelFileError) {
      let model = try file.string("tokenizer.ggml.model")
      let tokens = try file.strings("tokenizer.ggml.tokens")
      guard !tokens.isEmpty, tokens.count < 1 << 24 else {
        throw file.error("tokenizer.ggml.tokens", "expected 1 to 16777215 tokens, found \(tokens.count)")
      }
      let kinds = try Self.kinds(file, count: tokens.count)
      var parts: Parts
      switch model {
      case "gpt2": parts = try Self.byteParts(file, tokens: tokens, kinds: kinds)
      case "llama": parts = try Self.characterParts(file, tokens: tokens, kinds: kinds)
      default: throw file.error("tokenizer.ggml.model", "expected gpt2 or llama, found \"\(model)\"")
      }
      parts.special = tokens.indices.filter { kinds[$0] == .control || kinds[$0] == .userDefined }.map {
        SpecialTokens.Entry(id: Int32($0), content: Array(tokens[$0]), isControl: kinds[$0] == .control)
      }
      let ids = 0...tokens.count - 1
      func id(_ key: String) throws(ModelFileError) -> Int32? {
        try file.integerIfPresent("tokenizer.ggml.\(key)", in: ids).map { Int32($0) }
      }
      parts.bos = try id("bos_token_id")
      parts.eos = try id("eos_token_id")
      parts.unknown = try id("unknown_token_id")
      for key in ["eot_token_id", "eom_token_id"] {
        if let end = try id(key) { parts.endOfGeneration.insert(end) }
      }
      // Without the field, Llama 2 and 3 begin with it, as in llama.cpp.
      parts.addsBOS =
        try file.boolIfPresent("tokenizer.ggml.add_bos_token") ?? (model == "llama" || parts.prefersWholeWords)
      self.init(parts)
    } catch {
      throw .file(error)
    }
  }

  private static func kinds(_ file: GGUFFile, count: Int) throws(ModelFileError) -> [TokenKind] {
    let key = "tokenizer.ggml.token_type"
    guard let types = try file.integersIfPresent(key) else { return Array(repeating: .normal, count: count) }
    guard types.count == count else { throw file.error(key, "expected \(count) types, found \(types.count)") }
    return types.map { TokenKind(rawValue: UInt8(clamping: $0)) ?? .normal }
  }

  private static func byteParts(
    _ file: GGUFFile, tokens: ByteStrings, kinds: [TokenKind]
  ) throws(ModelFileError) -> Parts {
    let name = try file.stringIfPresent("tokenizer.ggml.pre") ?? "default"
    guard let preTokenizer = PreTokenizer(ggufName: name) else {
      throw file.error(
        "tokenizer.ggml.pre",
        "expected one of \(PreTokenizer.ggufNames.joined(separator: ", ")), found \"\(name)\"")
    }
    var vocabulary = Vocabulary()
    for index in tokens.indices {
      let content = Array(tokens[index])
      vocabulary.append(
        kinds[index] == .normal ? ByteAlphabet.bytes(of: content) : content, kind: kinds[index])
    }
    vocabulary.makeIndex()
    let merges = try file.strings("tokenizer.ggml.merges")
    var table = MergeTable(capacity: merges.count)
    for (rank, merge) in merges.enumerated() {
      // Neither side begins with a space: the alphabet has none.
      let sides = merge.split(separator: 0x20, maxSplits: 1)
      guard sides.count == 2 else { continue }
      let left = ByteAlphabet.bytes(of: Array(sides[0]))
      let right = ByteAlphabet.bytes(of: Array(sides[1]))
      table.insert(left, right, rank: rank, in: vocabulary)
    }
    var parts = Parts(scheme: .bytes, vocabulary: vocabulary, merges: table, preTokenizer: preTokenizer)
    if case .qwen2 = preTokenizer { parts.normalizes = true }
    if case .llama3 = preTokenizer { parts.prefersWholeWords = true }
    return parts
  }

  private static func characterParts(
    _ file: GGUFFile, tokens: ByteStrings, kinds: [TokenKind]
  ) throws(ModelFileError) -> Parts {
    let scores = try file.floats("tokenizer.ggml.scores")
    guard scores.count == tokens.count else {
      throw file.error("tokenizer.ggml.scores", "expected \(tokens.count) scores, found \(scores.count)")
    }
    var vocabulary = Vocabulary()
    for index in tokens.indices { vocabulary.append(tokens[index], kind: kinds[index]) }
    vocabulary.makeIndex()
    let prefix = try file.boolIfPresent("tokenizer.ggml.add_space_prefix") ?? true
    return Parts(
      scheme: .characters(prefix: prefix ? .each : .none), vocabulary: vocabulary,
      merges: merges(vocabulary, scores: scores),
      preTokenizer: .none)
  }

  /// Bytes of the longest token that is merged from others; longer ones come from hostile files only, which would take
  /// time as the square of a token's length.
  private static let longestMerged = 256

  /// SentencePiece merges the pair whose result has the highest score: every way to put a token together from two
  /// others is a merge, and its priority is the rank of the token's score.
  private static func merges(_ vocabulary: Vocabulary, scores: [Float]) -> MergeTable {
    let order = scores.indices.sorted { scores[$0] > scores[$1] }
    var pairs: [(left: Int32, right: Int32, priority: UInt32, result: Int32)] = []
    var priority: UInt32 = 0
    for (position, index) in order.enumerated() {
      if position > 0, scores[index] != scores[order[position - 1]] { priority += 1 }
      guard vocabulary.kinds[index] == .normal || vocabulary.kinds[index] == .userDefined else { continue }
      vocabulary[Int32(index)].withUnsafeBufferPointer { content in
        guard content.count <= Self.longestMerged else { return }
        for cut in 1..<max(1, content.count) where content[cut] & 0xC0 != 0x80 {
          guard let left = vocabulary.id(of: UnsafeBufferPointer(rebasing: content[..<cut])),
            let right = vocabulary.id(of: UnsafeBufferPointer(rebasing: content[cut...]))
          else { continue }
          pairs.append((left, right, priority, Int32(index)))
        }
      }
    }
    var table = MergeTable(capacity: pairs.count)
    for pair in pairs { table.insert(pair.left, pair.right, priority: pair.priority, result: pair.result) }
    return table
  }
}

extension MergeTable {
  /// Notes the merge of two tokens by their contents, where both and the result exist.
  mutating func insert(_ left: [UInt8], _ right: [UInt8], rank: Int, in vocabulary: Vocabulary) {
    func id(_ content: [UInt8]) -> Int32? { content.withUnsafeBufferPointer { vocabulary.id(of: $0) } }
    guard let first = id(left), let second = id(right), let result = id(left + right) else { return }
    insert(first, second, priority: UInt32(clamping: rank), result: result)
  }
}

/// The printable characters by which GPT-2's vocabulary files write bytes.
enum ByteAlphabet {
  /// The byte of each code point below 324, or -1.
  private static let byteOfScalar: [Int16] = {
    var table = [Int16](repeating: -1, count: 324)
    var next = 256
    for byte in 0..<256 {
      let isPrintable =
        (0x21...0x7E).contains(byte) || (0xA1...0xAC).contains(byte) || (0xAE...0xFF).contains(byte)
      table[isPrintable ? byte : next] = Int16(byte)
      if !isPrintable { next += 1 }
    }
    return table
  }()

  /// The bytes that a text in this alphabet writes; a text with other characters stands for itself.
  static func bytes(of text: [UInt8]) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(text.count)
    var index = 0
    while index < text.count {
      // All characters of the alphabet have one or two bytes in UTF-8.
      var scalar = Int(text[index])
      index += 1
      guard scalar < 0xE0 else { return text }
      if scalar >= 0xC0, index < text.count {
        scalar = (scalar & 0x1F) << 6 | Int(text[index] & 0x3F)
        index += 1
      }
      guard scalar < byteOfScalar.count, byteOfScalar[scalar] >= 0 else { return text }
      bytes.append(UInt8(byteOfScalar[scalar]))
    }
    return bytes
  }
}
