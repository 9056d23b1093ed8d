// From text to token ids and back: byte-level BPE (GPT-2, Qwen, Llama 3) and SentencePiece-style BPE (Llama 2,
// Mistral, Gemma). Where the parts come from is in `Tokenizer+GGUF.swift` and `Tokenizer+HuggingFace.swift`.
//
// Checked against PyPI `tokenizers` (`Tests/TokenizationTests`).

import Foundation

/// A model's tokenizer. It holds no state and may be shared.
public struct Tokenizer: Sendable {
  /// How a word becomes symbols, and tokens text again.
  enum Scheme: Sendable, Equatable {
    /// Symbols are bytes.
    case bytes
    /// Symbols are characters, with spaces as `▁`; a character without a token becomes byte tokens.
    case characters(prefix: SpacePrefix)
  }

  /// Where SentencePiece-style tokenizers put a space before text; decoding takes the first one away.
  enum SpacePrefix: Sendable {
    case none
    /// Before the text, unless it begins with one.
    case first
    /// Before each part between special tokens that does not begin with one.
    case missing
    /// Before each part between special tokens.
    case each
  }

  /// What a file says about its tokenizer.
  struct Parts: Sendable {
    var scheme: Scheme
    var vocabulary: Vocabulary
    var merges: MergeTable
    var preTokenizer: PreTokenizer
    /// Whether text is brought into Unicode's normal form C first.
    var normalizes = false
    /// Whether a word that is a token is taken as it is, whatever its merges give (Llama 3).
    var prefersWholeWords = false
    var special: [SpecialTokens.Entry] = []
    var bos: Int32?
    var eos: Int32?
    var addsBOS = false
    var unknown: Int32?
    var endOfGeneration: Set<Int32> = []
  }

  let parts: Parts
  private let special: SpecialTokens
  /// The token of each byte; -1 where there is none.
  private let byteTokens: [Int32]
  /// Whether some token goes on with `▁` after a byte, [byte]. Nothing merges across any other byte and `▁`.
  private let joinsSpace: [Bool]

  init(_ parts: Parts) {
    var parts = parts
    parts.vocabulary.makeIndex()
    let vocabulary = parts.vocabulary
    byteTokens = (0..<256).map { byte in
      let content = parts.scheme == .bytes ? [UInt8(byte)] : Array(String(format: "<0x%02X>", byte).utf8)
      return content.withUnsafeBufferPointer { vocabulary.id(of: $0) } ?? -1
    }
    parts.endOfGeneration.formUnion(parts.eos.map { [$0] } ?? [])
    parts.endOfGeneration.formUnion(Self.knownEnds.compactMap { vocabulary.id(of: $0) })
    special = SpecialTokens(parts.special)
    joinsSpace = parts.scheme == .bytes ? [] : Self.bytesBeforeSpaces(in: vocabulary)
    self.parts = parts
  }

  /// Tokens with which models of known families end a text or a turn, also where their files do not say so.
  private static let knownEnds = [
    "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<end_of_turn>",
  ]

  // MARK: Vocabulary

  /// Entries of the vocabulary. The model's embedding table may have more rows.
  public var vocabularySize: Int { parts.vocabulary.count }
  /// The token with which a text begins, where the model knows one.
  public var bos: Int32? { parts.bos }
  /// The token with which a text ends.
  public var eos: Int32? { parts.eos }
  /// Whether ``encode(_:recognizesControlTokens:addsBOS:)`` begins with ``bos`` by default.
  public var addsBOS: Bool { parts.addsBOS && parts.bos != nil }
  /// The tokens after which nothing more is to be generated.
  public var endOfGenerationIDs: Set<Int32> { parts.endOfGeneration }

  /// The id of a token by its text.
  public func id(of token: String) -> Int32? { parts.vocabulary.id(of: token) }

  /// What first differs between two vocabularies, or `nil` where each id means the same in both.
  ///
  /// Unused entries at the end, with which some files fill up their vocabulary, do not count.
  public func firstDifference(from other: Tokenizer) -> String? {
    let mine = parts.vocabulary
    let others = other.parts.vocabulary
    func quoted(_ content: ArraySlice<UInt8>) -> String { "\"\(String(decoding: content, as: UTF8.self))\"" }
    for id in 0..<Int32(min(mine.count, others.count)) where mine[id] != others[id] {
      return "token \(id) \(quoted(mine[id])) in one and \(quoted(others[id])) in the other"
    }
    let longer = mine.count > others.count ? mine : others
    let shorter = min(mine.count, others.count)
    if let id = (shorter..<longer.count).first(where: { longer.kinds[$0] != .unused }) {
      return "token \(id) \(quoted(longer[Int32(id)])) in only one of them"
    }
    return nil
  }

  /// 16 hexadecimal digits that differ between vocabularies that differ, but for bad luck: FNV-1a over each entry's
  /// length and bytes.
  ///
  /// Unused entries at the end, with which some files fill up their vocabulary, do not count.
  public var vocabularyHash: String {
    let vocabulary = parts.vocabulary
    let count = (vocabulary.kinds.lastIndex { $0 != .unused } ?? -1) + 1
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    func add(_ byte: UInt8) { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
    for id in 0..<Int32(count) {
      let content = vocabulary[id]
      withUnsafeBytes(of: UInt32(truncatingIfNeeded: content.count).littleEndian) { $0.forEach(add) }
      content.forEach(add)
    }
    let digits = String(hash, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }

  // MARK: Encoding

  /// The tokens of a text.
  ///
  /// - Parameters:
  ///   - text: the text.
  ///   - recognizesControlTokens: whether texts such as `<|im_end|>` become the tokens they name. Switch it off for
  ///     content from outside.
  ///   - addsBOS: whether the first token is ``bos``; by default as the model wants it.
  public func encode(_ text: String, recognizesControlTokens: Bool = true, addsBOS: Bool? = nil) -> [Int32] {
    var ids: [Int32] = []
    if addsBOS ?? self.addsBOS, let bos = parts.bos { ids.append(bos) }
    var text = text
    text.withUTF8 { bytes in
      var encoder = WordEncoder(self)
      ids.reserveCapacity(bytes.count / 3)
      special.split(bytes, includingControl: recognizesControlTokens) { range, token in
        if let token { return ids.append(token) }
        let part = UnsafeBufferPointer(rebasing: bytes[range])
        encodePart(part, isFirst: range.lowerBound == 0, &encoder, into: &ids)
      }
    }
    return ids
  }

  /// Encodes text between special tokens.
  private func encodePart(
    _ part: UnsafeBufferPointer<UInt8>, isFirst: Bool, _ encoder: inout WordEncoder, into ids: inout [Int32]
  ) {
    if case .characters(let prefix) = parts.scheme {
      var spaced: [UInt8] = []
      spaced.reserveCapacity(part.count + part.count / 2 + 3)
      if needsSpace(part, prefix, isFirst: isFirst) { spaced += Self.space }
      for byte in part {
        if byte == 0x20 { spaced += Self.space } else { spaced.append(byte) }
      }
      return spaced.withUnsafeBufferPointer { encodeWords($0, &encoder, into: &ids) }
    }
    if parts.normalizes, let normal = NormalForm.c.normalized(part) {
      return normal.withUnsafeBufferPointer { encodeWords($0, &encoder, into: &ids) }
    }
    encodeWords(part, &encoder, into: &ids)
  }

  private func needsSpace(_ part: UnsafeBufferPointer<UInt8>, _ prefix: SpacePrefix, isFirst: Bool) -> Bool {
    lazy var beginsWithSpace = part.first == 0x20 || part.starts(with: Self.space)
    return switch prefix {
    case .none: false
    case .first: isFirst && !beginsWithSpace
    case .missing: !beginsWithSpace
    case .each: true
    }
  }

  private func encodeWords(
    _ text: UnsafeBufferPointer<UInt8>, _ encoder: inout WordEncoder, into ids: inout [Int32]
  ) {
    encoder.begin(text)
    parts.preTokenizer.forEachWord(in: text) { word in
      if parts.scheme == .bytes { return encoder.encode(word, of: text, into: &ids) }
      var start = word.lowerBound
      // Shorter words merge faster, and come again.
      for index in word.dropFirst() where Self.isSpace(text, at: index) && !joinsSpace[Int(text[index - 1])] {
        encoder.encode(start..<index, of: text, into: &ids)
        start = index
      }
      encoder.encode(start..<word.upperBound, of: text, into: &ids)
    }
  }

  private static func bytesBeforeSpaces(in vocabulary: Vocabulary) -> [Bool] {
    var joins = [Bool](repeating: false, count: 256)
    for id in 0..<Int32(vocabulary.count) {
      vocabulary[id].withUnsafeBufferPointer { content in
        for index in content.indices.dropFirst() where isSpace(content, at: index) {
          joins[Int(content[index - 1])] = true
        }
      }
    }
    return joins
  }

  /// Whether ``space`` stands at `index`.
  private static func isSpace(_ text: UnsafeBufferPointer<UInt8>, at index: Int) -> Bool {
    text[index] == 0xE2 && index + 2 < text.count && text[index + 1] == 0x96 && text[index + 2] == 0x81
  }

  /// `▁`, which stands for a space in SentencePiece's tokens.
  static let space: [UInt8] = [0xE2, 0x96, 0x81]

  /// The symbols of a word before merging.
  func appendSymbols(of word: UnsafeBufferPointer<UInt8>, to merger: inout PairMerger) {
    if parts.scheme == .bytes {
      for byte in word where byteTokens[Int(byte)] >= 0 { merger.append(byteTokens[Int(byte)]) }
      return
    }
    var start = 0
    while start < word.count {
      let end = min(start + Self.characterLength(word[start]), word.count)
      let character = UnsafeBufferPointer(rebasing: word[start..<end])
      merger.append(parts.vocabulary.id(of: character) ?? Int32(-2 - start))
      start = end
    }
  }

  /// The byte tokens of the character at `offset` in a word, or the unknown token.
  func fallback(for word: UnsafeBufferPointer<UInt8>, at offset: Int, into ids: inout [Int32]) {
    let end = min(offset + Self.characterLength(word[offset]), word.count)
    let tokens = word[offset..<end].map { byteTokens[Int($0)] }
    ids += tokens.allSatisfy { $0 >= 0 } ? tokens : parts.unknown.map { [$0] } ?? []
  }

  /// Bytes of the UTF-8 character that begins with `byte`.
  private static func characterLength(_ byte: UInt8) -> Int {
    byte < 0xC0 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4
  }

  // MARK: Decoding

  /// The bytes that a token stands for; they need not be whole characters. Empty for an id without a token.
  public func bytes(of id: Int32) -> [UInt8] {
    let content = parts.vocabulary[id]
    guard parts.scheme != .bytes, !content.isEmpty else { return Array(content) }
    let kind = parts.vocabulary.kinds[Int(id)]
    if kind == .byte, content.count == 6 {
      let digits = String(decoding: content.dropFirst(3).prefix(2), as: UTF8.self)
      if let byte = UInt8(digits, radix: 16) { return [byte] }
    }
    return kind == .normal ? Self.replaceSpaces(content) : Array(content)
  }

  private static func replaceSpaces(_ content: ArraySlice<UInt8>) -> [UInt8] {
    var result: [UInt8] = []
    var rest = content
    while let first = rest.first {
      if rest.starts(with: space) {
        result.append(0x20)
        rest = rest.dropFirst(space.count)
      } else {
        result.append(first)
        rest = rest.dropFirst()
      }
    }
    return result
  }

  /// The text of some tokens; bytes that form no character become U+FFFD.
  ///
  /// - Parameters:
  ///   - ids: the tokens.
  ///   - skipsControlTokens: whether control tokens are left out.
  public func decode(_ ids: some Sequence<Int32>, skipsControlTokens: Bool = false) -> String {
    var detokenizer = StreamingDetokenizer(self, skipsControlTokens: skipsControlTokens)
    return ids.map { detokenizer.push($0) }.joined() + detokenizer.flush()
  }

  /// Whether a token steers the model and has no text of its own.
  func isControl(_ id: Int32) -> Bool {
    id >= 0 && id < parts.vocabulary.count && parts.vocabulary.kinds[Int(id)] == .control
  }
}

/// Encodes words, remembering those of the same text: a word that comes again is copied from the tokens already made.
struct WordEncoder {
  private let tokenizer: Tokenizer
  private var merger = PairMerger()
  private var cache: [Entry] = []

  /// Where a word stood in the text, and its tokens in the result.
  private struct Entry {
    var hash: UInt64 = 0
    var start: Int32 = 0
    var length: Int32 = 0
    var firstToken: Int32 = 0
    var tokenCount: Int32 = 0
  }

  /// Longer words are rare and would only push others out.
  private static let longestCached = 40

  init(_ tokenizer: Tokenizer) { self.tokenizer = tokenizer }

  /// Starts a new text, which stays in memory until the next one.
  mutating func begin(_ text: UnsafeBufferPointer<UInt8>) {
    // A short text has few words that come again. Offsets are kept in 32 bits.
    guard text.count >= 1024, text.count < Int(Int32.max) else {
      cache = []
      return
    }
    var size = 256
    while size < text.count / 16, size < 1 << 15 { size *= 2 }
    cache = Array(repeating: Entry(), count: size)
  }

  /// Appends the tokens of the word at `range` of `text`.
  mutating func encode(_ range: Range<Int>, of text: UnsafeBufferPointer<UInt8>, into ids: inout [Int32]) {
    let word = UnsafeBufferPointer(rebasing: text[range])
    guard !cache.isEmpty, word.count <= Self.longestCached else { return encode(word, into: &ids) }
    let hash = Vocabulary.hash(word)
    let slot = Int(truncatingIfNeeded: hash) & (cache.count - 1)
    let entry = cache[slot]
    if entry.hash == hash, Int(entry.length) == word.count,
      (0..<word.count).allSatisfy({ text[Int(entry.start) + $0] == word[$0] })
    {
      for index in Int(entry.firstToken)..<Int(entry.firstToken + entry.tokenCount) { ids.append(ids[index]) }
      return
    }
    let first = ids.count
    encode(word, into: &ids)
    cache[slot] = Entry(
      hash: hash, start: Int32(range.lowerBound), length: Int32(word.count), firstToken: Int32(first),
      tokenCount: Int32(ids.count - first))
  }

  private mutating func encode(_ word: UnsafeBufferPointer<UInt8>, into ids: inout [Int32]) {
    if tokenizer.parts.prefersWholeWords, let id = tokenizer.parts.vocabulary.id(of: word) {
      return ids.append(id)
    }
    merger.begin()
    tokenizer.appendSymbols(of: word, to: &merger)
    merger.merge { left, right in tokenizer.parts.merges.lookup(left, right) }
    for symbol in merger.symbols {
      if symbol >= 0 {
        ids.append(symbol)
      } else {
        tokenizer.fallback(for: word, at: -2 - Int(symbol), into: &ids)
      }
    }
  }
}
