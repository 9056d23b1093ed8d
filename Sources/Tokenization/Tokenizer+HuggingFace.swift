// A tokenizer from a Hugging Face folder: `tokenizer.json`, with `tokenizer_config.json`, `config.json` and
// `generation_config.json` for what begins and ends a text.

import KindredModelFiles

extension Tokenizer {
  /// Reads the tokenizer of a Hugging Face folder.
  public init(huggingFace folder: HuggingFaceFolder) throws(TokenizerError) {
    guard let path = folder.tokenizerPath else {
      throw .unsupported(path: folder.path, field: "tokenizer", expected: "tokenizer.json", found: "none")
    }
    do {
      let file = TokenizerFile(root: try JSONNode(path: path))
      var parts = try file.parts()
      let ends = [folder.config, folder.generationConfig].compactMap(\.self)
      for source in ends {
        for id in try source.integersIfPresent("eos_token_id") ?? [] {
          if let id = Int32(exactly: id) { parts.endOfGeneration.insert(id) }
        }
      }
      if let configPath = folder.tokenizerConfigPath {
        let config = try JSONNode(path: configPath)
        parts.eos = try file.id(ofToken: "eos_token", in: config, parts.vocabulary) ?? parts.eos
        parts.bos = try parts.bos ?? file.id(ofToken: "bos_token", in: config, parts.vocabulary)
        if let adds = try config.boolIfPresent("add_bos_token") { parts.addsBOS = adds }
      }
      self.init(parts)
    } catch let error as TokenizerError {
      throw error
    } catch let error as ModelFileError {
      throw .file(error)
    } catch {
      throw .unsupported(path: path, field: "tokenizer", expected: "a tokenizer", found: "\(error)")
    }
  }
}

/// Reads the parts of a `tokenizer.json`.
private struct TokenizerFile {
  let root: JSONNode

  func unsupported(_ field: String, _ expected: String, _ found: String?) -> TokenizerError {
    .unsupported(
      path: root.path, field: field, expected: expected, found: found.map { "\"\($0)\"" } ?? "nothing")
  }

  func parts() throws -> Tokenizer.Parts {
    let type = try root.stringIfPresent("model.type") ?? "BPE"
    guard type == "BPE" else { throw unsupported("model.type", "BPE", type) }
    let normalizer = try Normalizer(self)
    let splitting = try Splitting(self, normalizer)
    let usesBytes = splitting.usesByteAlphabet
    let added = try addedTokens()
    var vocabulary = try vocabulary(added: added, usesByteAlphabet: usesBytes)
    vocabulary.makeIndex()
    var parts = Tokenizer.Parts(
      scheme: usesBytes ? .bytes : .characters(prefix: splitting.prefix ?? normalizer.prefix),
      vocabulary: vocabulary, merges: try merges(vocabulary, usesByteAlphabet: usesBytes),
      preTokenizer: splitting.preTokenizer)
    parts.normalizes = normalizer.composes
    parts.prefersWholeWords = try root.boolIfPresent("model.ignore_merges") ?? false
    parts.special = added
    parts.unknown = try root.stringIfPresent("model.unk_token").flatMap { vocabulary.id(of: $0) }
    if let bos = try beginning() {
      parts.bos = vocabulary.id(of: bos)
      parts.addsBOS = true
    }
    return parts
  }

  // MARK: Vocabulary

  func addedTokens() throws -> [SpecialTokens.Entry] {
    guard root.value("added_tokens") != nil else { return [] }
    return try root.elements("added_tokens").map { token in
      if try token.boolIfPresent("single_word") == true {
        throw unsupported("added_tokens", "single_word false", try token.string("content"))
      }
      return SpecialTokens.Entry(
        id: Int32(try token.integer("id", in: 0...1 << 24)), content: Array(try token.string("content").utf8),
        isControl: try token.boolIfPresent("special") ?? false,
        stripsLeft: try token.boolIfPresent("lstrip") ?? false,
        stripsRight: try token.boolIfPresent("rstrip") ?? false)
    }
  }

  func vocabulary(
    added: [SpecialTokens.Entry], usesByteAlphabet: Bool
  ) throws -> Vocabulary {
    let entries = try root.object("model.vocab")
    // Ids may have gaps, but a file must not make us allocate for ids that it has no tokens for.
    let limit = (entries.count + added.count) * 2 + 65_536
    var contents: [[UInt8]] = []
    var kinds: [TokenKind] = []
    func set(_ id: Int, _ content: [UInt8], _ kind: TokenKind) throws {
      guard (0..<limit).contains(id) else {
        throw unsupported("model.vocab", "ids below \(limit)", "\(id)")
      }
      while contents.count <= id {
        contents.append([])
        kinds.append(.unused)
      }
      contents[id] = content
      kinds[id] = kind
    }
    for member in entries {
      guard let id = member.value.integer else {
        throw root.error("model.vocab", "expected integers, found \(member.value)")
      }
      let content = Array(member.key.utf8)
      let isByte = !usesByteAlphabet && content.count == 6 && content.starts(with: "<0x".utf8)
      try set(id, usesByteAlphabet ? ByteAlphabet.bytes(of: content) : content, isByte ? .byte : .normal)
    }
    for token in added {
      try set(Int(token.id), token.content, token.isControl ? .control : .userDefined)
    }
    var vocabulary = Vocabulary()
    for (content, kind) in zip(contents, kinds) { vocabulary.append(content, kind: kind) }
    return vocabulary
  }

  /// Merges are texts with a space between, or pairs, in newer files.
  func merges(_ vocabulary: Vocabulary, usesByteAlphabet: Bool) throws -> MergeTable {
    guard case .array(let merges) = root.value("model.merges") else {
      throw root.error("model.merges", "expected an array, found none")
    }
    var table = MergeTable(capacity: merges.count)
    func content(_ text: some StringProtocol) -> [UInt8] {
      usesByteAlphabet ? ByteAlphabet.bytes(of: Array(text.utf8)) : Array(text.utf8)
    }
    for (rank, merge) in merges.enumerated() {
      switch merge {
      case .string(let text):
        let sides = text.utf8.split(separator: 0x20, maxSplits: 1)
        guard sides.count == 2 else { continue }
        table.insert(content(Substring(sides[0])), content(Substring(sides[1])), rank: rank, in: vocabulary)
      case .array(let sides):
        guard sides.count == 2, let left = sides[0].string, let right = sides[1].string else {
          throw root.error("model.merges[\(rank)]", "expected two texts, found \(merge)")
        }
        table.insert(content(left), content(right), rank: rank, in: vocabulary)
      default:
        throw root.error("model.merges[\(rank)]", "expected a text or a pair, found \(merge)")
      }
    }
    return table
  }

  /// The steps of a part of the file, which may be a sequence of several.
  func steps(_ key: String, _ list: String) throws -> [JSONNode] {
    guard let value = root.value(key), !value.isNull else { return [] }
    guard try root.string("\(key).type") == "Sequence" else { return [root.child(key)] }
    return try root.elements("\(key).\(list)")
  }

  /// The token that the post-processor puts first.
  func beginning() throws -> String? {
    for step in try steps("post_processor", "processors")
    where try step.string("type") == "TemplateProcessing" {
      return try step.elements("single").first?.stringIfPresent("SpecialToken.id")
    }
    return nil
  }

  /// A token that `tokenizer_config.json` names, as text or as an object.
  func id(ofToken key: String, in config: JSONNode, _ vocabulary: Vocabulary) throws -> Int32? {
    let text = config.value(key)?.string
    return try (text ?? config.stringIfPresent("\(key).content")).flatMap { vocabulary.id(of: $0) }
  }
}

/// What `normalizer` says.
private struct Normalizer {
  var composes = false
  var prefix = Tokenizer.SpacePrefix.none
  /// Whether spaces become `▁`, which is how vocabularies of characters encode them here.
  var replacesSpaces = false

  init(_ file: TokenizerFile) throws {
    for step in try file.steps("normalizer", "normalizers") {
      switch try step.string("type") {
      case "NFC": composes = true
      case "Prepend":
        let text = try step.string("prepend")
        guard text == "▁" else { throw file.unsupported("normalizer.prepend", "▁", text) }
        prefix = .each
      case "Replace":
        let (pattern, content) = (try step.stringIfPresent("pattern.String"), try step.string("content"))
        guard pattern == " ", content == "▁" else {
          throw file.unsupported(
            "normalizer", "Replace of a space by ▁", "Replace of \(pattern ?? "a pattern") by \(content)")
        }
        replacesSpaces = true
      case let other: throw file.unsupported("normalizer", "NFC, Prepend or Replace", other)
      }
    }
  }
}

/// What `pre_tokenizer` says.
private struct Splitting {
  var preTokenizer = PreTokenizer.none
  var usesByteAlphabet = false
  /// Where a Metaspace step puts spaces.
  var prefix: Tokenizer.SpacePrefix?

  init(_ file: TokenizerFile, _ normalizer: Normalizer) throws {
    var splitsDigits = false
    for step in try file.steps("pre_tokenizer", "pretokenizers") {
      switch try step.string("type") {
      case "ByteLevel":
        usesByteAlphabet = true
        if try step.boolIfPresent("add_prefix_space") == true {
          throw file.unsupported("pre_tokenizer.add_prefix_space", "false", "true")
        }
        if try step.boolIfPresent("use_regex") ?? true { preTokenizer = splitsDigits ? .smollm : .gpt2 }
      case "Digits":
        guard try step.bool("individual_digits") else {
          throw file.unsupported("pre_tokenizer.individual_digits", "true", "false")
        }
        splitsDigits = true
      case "Split":
        // Gemma splits at spaces, of which its normalizer leaves none.
        if normalizer.replacesSpaces, try step.stringIfPresent("pattern.String") == " " { continue }
        guard let pattern = try step.stringIfPresent("pattern.Regex") else {
          throw file.unsupported("pre_tokenizer", "Split by a Regex", "Split by a String")
        }
        let inverts = try step.boolIfPresent("invert") ?? false
        let behavior = try step.string("behavior")
        // Both keep every match of patterns that match everything.
        guard inverts ? behavior == "Removed" : behavior == "Isolated" else {
          throw file.unsupported("pre_tokenizer", "Split that isolates matches", "\(behavior), invert \(inverts)")
        }
        guard case .none = preTokenizer else {
          throw file.unsupported("pre_tokenizer", "one Split", "several")
        }
        do { preTokenizer = try PreTokenizer(pattern: pattern) } catch {
          throw TokenizerError.pattern(path: file.root.path, error)
        }
      case "Metaspace":
        switch try step.stringIfPresent("prepend_scheme") ?? "always" {
        case "never": prefix = Tokenizer.SpacePrefix.none
        case "first": prefix = .first
        default: prefix = .missing
        }
      case let other:
        throw file.unsupported("pre_tokenizer", "ByteLevel, Digits, Split or Metaspace", other)
      }
    }
    if splitsDigits, case .smollm = preTokenizer { return }
    if splitsDigits { throw file.unsupported("pre_tokenizer", "Digits before ByteLevel", "Digits alone") }
  }
}
