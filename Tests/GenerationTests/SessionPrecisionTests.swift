// What a long prompt is asked for comes with decode's precision, although its other tokens are read with less.

import KindredCompute
import KindredGeneration
import KindredTransformer
import Testing

@Suite struct SessionPrecisionTests {
  let decoder: DecoderModel<CPUBackend>
  let prompt = (0..<150).map { Int32($0 * $0 * 7 % 997) }

  init() throws {
    decoder = try Self.decoder(on: CPUBackend())
  }

  static func decoder(on backend: CPUBackend) throws -> DecoderModel<CPUBackend> {
    try LanguageModel(OpenedModel(random: try RandomModel("random:qwen2-0.5b:layers=1")), backend: backend).decoder
  }

  /// Not by #expect itself, which looks for what differs in so many numbers for minutes.
  func areSame(_ some: [Float], _ others: [Float]) -> Bool { some == others }

  /// The logits after each of the last `count` tokens of the prompt, read in a pass of their own.
  func apart(_ count: Int) throws -> [[Float]] {
    let session = try Session(decoder: decoder)
    try session.append(prompt.dropLast(count)) { _, _ in }
    var all: [[Float]] = []
    try session.append([Session<CPUBackend>.Part(sequence: 0, tokens: prompt.suffix(count), wanted: count)]) {
      _, _, logits in
      all.append(logits)
    }
    return all
  }

  @Test func lastTokenOfAPromptIsReadAsInDecode() throws {
    let expected = try apart(1)[0]
    #expect(areSame(try Session(decoder: decoder).append(prompt), expected))
    var together: [Float] = []
    try Session(decoder: decoder).append(prompt) { first, logits in
      if first + logits.count / expected.count == prompt.count { together = logits.suffix(expected.count) }
    }
    // All of them are wanted: none is read apart, and the last has the precision of many rows.
    #expect(!areSame(together, expected))
  }

  /// A long prompt that is cut into short passes is not more precise than in one, nor slower.
  @Test func passesOfALongPromptAreAlikePrecise() throws {
    // Others round weights, or add up bf16, where a pass has many rows.
    let set = InstructionSet.available.contains(.avx2) ? InstructionSet.avx2 : .generic
    let decoder = try Self.decoder(on: CPUBackend(instructionSet: set))
    let whole = try Session(decoder: decoder).append(prompt)
    var options = Session<CPUBackend>.Options()
    options.chunkRows = 32
    let cut = try Session(decoder: decoder, options: options)
    #expect(areSame(try cut.append(prompt), whole))
    let parts = try Session(decoder: decoder, options: options)
    try parts.append([.init(sequence: 0, tokens: prompt)]) { _, _, logits in #expect(areSame(logits, whole)) }
    let short = try Session(decoder: decoder, options: options)
    for first in [0, 50] { _ = try short.append(Array(prompt[first..<first + 50])) }
    #expect(!areSame(try short.append(Array(prompt.suffix(50))), whole))
  }

  @Test func wantedTokensOfSeveralSequencesAreReadApart() throws {
    let expected = try apart(3)
    let session = try Session(decoder: decoder)
    let other = session.addSequence()
    let parts = [
      Session<CPUBackend>.Part(sequence: other, tokens: [5, 6], wanted: 2),
      Session<CPUBackend>.Part(sequence: 0, tokens: prompt, wanted: 3),
    ]
    var found: [[Float]] = []
    var places: [[Int]] = []
    try session.append(parts) { part, token, logits in
      places.append([part, token])
      if part == 1 { found.append(logits) }
    }
    #expect(places == [[0, 0], [0, 1], [1, 147], [1, 148], [1, 149]])
    #expect(areSame(found.flatMap(\.self), expected.flatMap(\.self)))
    #expect(session.tokens == prompt)
  }
}
