// Why a generation ends, and which times it reports then.

import Foundation
import KindredCompute
import KindredGeneration
import KindredTokenization
import KindredTransformer
import Testing

@Suite struct TextGenerationTests {
  /// The tiny large model with a tokenizer of single characters, one of which may end a text.
  struct Model {
    let decoder: DecoderModel<CPUBackend>
    let tokenizer: Tokenizer

    init(end: Int32? = nil) throws {
      let folder = FileManager.default.temporaryDirectory.appendingPathComponent("kindred-text-\(UUID().uuidString)")
      defer { try? FileManager.default.removeItem(at: folder) }
      try FileManager.default.copyItem(at: TinyPair.folder("large"), to: folder)
      let characters = (33...126).map { (code: UInt8) in "\(UnicodeScalar(code))" } + ["Ġ", "Ċ"]
      let vocabulary = Dictionary(
        uniqueKeysWithValues: characters.enumerated().map { ($0 == end.map(Int.init) ? "<|im_end|>" : $1, $0) })
      let file: [String: Any] = [
        "model": ["type": "BPE", "vocab": vocabulary, "merges": [String]()],
        "pre_tokenizer": ["type": "ByteLevel", "add_prefix_space": false, "use_regex": true],
        "decoder": ["type": "ByteLevel"],
      ]
      try JSONSerialization.data(withJSONObject: file).write(to: folder.appendingPathComponent("tokenizer.json"))
      let opened = try OpenedModel(path: folder.path)
      decoder = try DecoderModel(opened, backend: CPUBackend(threads: 1))
      tokenizer = try Tokenizer(file: #require(opened.file))
    }

    func run(_ options: GenerationOptions, isCancelled: () -> Bool = { false }) throws -> GenerationStatistics {
      try TextGeneration(session: Session(decoder: decoder), tokenizer: tokenizer, options: options)
        .run([1, 2, 3], isCancelled: isCancelled) { _ in }
    }

    /// The tokens of a greedy continuation of what `run` reads.
    func continuation(_ count: Int) throws -> [Int32] {
      let session = try Session(decoder: decoder)
      var next: [Int32] = [1, 2, 3]
      return try (0..<count).map { _ in
        let token = Sampler.mostLikely(try session.append(next))
        next = [token]
        return token
      }
    }
  }

  @Test func theTokenThatEndsATextTakesNoTime() throws {
    let tokens = try Model().continuation(8)
    let second = try #require(tokens.first { $0 != tokens[0] })
    let none = try Model(end: tokens[0]).run(.init(maxTokens: 8))
    #expect(none.stopReason == .endOfText && none.generatedTokens == 0)
    #expect(none.ttftSeconds == 0 && none.tpotSeconds == 0)
    let some = try Model(end: second).run(.init(maxTokens: 8))
    let generated = try #require(tokens.firstIndex(of: second))
    #expect(some.stopReason == .endOfText && some.generatedTokens == generated && some.ttftSeconds > 0)
    #expect((some.tpotSeconds > 0) == (generated > 1))
  }

  @Test func theFirstReasonCounts() throws {
    let model = try Model()
    #expect(try model.run(.init(maxTokens: 0)).stopReason == .maxTokens)
    #expect(try model.run(.init(maxTokens: 1)) { true }.stopReason == .cancelled)
    // After the last token nothing is left to be cancelled.
    var asked = 0
    let last = try model.run(.init(maxTokens: 1)) {
      asked += 1
      return asked > 1
    }
    #expect(last.stopReason == .maxTokens && last.generatedTokens == 1 && asked == 1)
    let limit = model.decoder.configuration.contextLength
    let full = try model.run(.init(maxTokens: 10 * limit))
    #expect(full.stopReason == .contextFull && full.generatedTokens == limit - 2)
    let text = model.tokenizer.decode(try model.continuation(limit - 2))
    let stopped = try model.run(.init(maxTokens: 10 * limit, stops: [String(text.suffix(limit - 10))]))
    #expect(stopped.stopReason == .stopString)
  }

  @Test func optionsThatMakeNoSenseAreRefused() throws {
    let model = try Model()
    #expect(throws: GenerationOptionsError.self) { _ = try model.run(.init(maxTokens: -1)) }
    var options = GenerationOptions()
    options.sampling.temperature = 1
    options.sampling.topK = -1
    let error = #expect(throws: GenerationOptionsError.self) { _ = try model.run(options) }
    #expect(error?.description == "top-k: expected 0 or more, found -1")
  }
}
