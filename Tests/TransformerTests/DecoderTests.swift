// The decoder pass against PyPI `transformers` on tiny random models of every family, and against itself: chunks,
// batches and storage types.

import Foundation
import KindredCompute
import KindredTransformer
import Testing

/// Token ids and the logits that `transformers` computes for them.
struct Expected: Decodable {
  let tokens: [Int32]
  let vocabulary: Int
  /// Float32, little-endian, `[tokens, vocabulary]`, in base 64.
  let logits: Data

  var values: [Float] { logits.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) } }
}

/// A tiny model that `make_fixtures.py` made.
struct Fixture {
  let expected: Expected
  let decoder: DecoderModel<CPUBackend>

  static let folders = [
    "qwen2", "qwen2-tied", "qwen2-bf16", "qwen3", "llama", "llama-f16", "llama3", "smollm2", "mistral", "odd-sizes",
  ]
  static let ggufs = ["qwen2-gguf", "llama3-gguf"]

  init(_ name: String, set: InstructionSet = .generic, threads: Int = 2) throws {
    let folder = try #require(Bundle.module.url(forResource: "Fixtures/\(name)", withExtension: nil))
    expected = try JSONDecoder().decode(
      Expected.self, from: Data(contentsOf: folder.appendingPathComponent("expected.json")))
    let gguf = folder.appendingPathComponent("model.gguf").path
    let path = FileManager.default.fileExists(atPath: gguf) ? gguf : folder.path
    decoder = try DecoderModel(OpenedModel(path: path), backend: CPUBackend(threads: threads, instructionSet: set))
  }

  func state(kvType: KVType = .f32) throws -> RunState<CPUBackend> {
    try RunState(decoder.configuration, backend: decoder.backend, rowCapacity: 128, kvType: kvType)
  }

  /// The logits of `tokens`, run in chunks.
  func logits(_ tokens: [Int32], chunk: Int = 128, kvType: KVType = .f32) throws -> [Float] {
    let state = try state(kvType: kvType)
    let sequence = state.store.addSequence()
    var logits: [Float] = []
    for start in stride(from: 0, to: tokens.count, by: chunk) {
      var batch = Batch()
      batch.append(tokens[start..<min(start + chunk, tokens.count)], to: sequence, from: start)
      try decoder.forward(batch, state: state)
      logits += decoder.logits(rows: 0..<batch.tokens.count, state: state)
    }
    return logits
  }
}

/// The largest difference between two lists of the same length; infinite where a value is not a number.
func largestDifference(_ a: [Float], _ b: [Float]) -> Float {
  guard a.count == b.count else { return .infinity }
  return zip(a, b).reduce(0) { largest, pair in
    let difference = abs(pair.0 - pair.1)
    return difference.isNaN ? .infinity : max(largest, difference)
  }
}

@Suite struct DecoderTests {
  @Test(arguments: Fixture.folders + Fixture.ggufs, InstructionSet.available)
  func agreesWithTransformers(name: String, set: InstructionSet) throws {
    let fixture = try Fixture(name, set: set)
    let logits = try fixture.logits(fixture.expected.tokens)
    #expect(largestDifference(logits, fixture.expected.values) < 1e-4)
  }

  @Test(arguments: Fixture.folders + ["qwen2-quantized"], InstructionSet.available)
  func chunksAgreeBitForBit(name: String, set: InstructionSet) throws {
    let fixture = try Fixture(name, set: set)
    let tokens = fixture.expected.tokens
    for kvType in [KVType.f32, .f16] {
      let whole = try fixture.logits(tokens, kvType: kvType)
      let tolerance = try Self.tolerance(name, set, kvType)
      for chunk in [1, 7, 33] {
        let logits = try fixture.logits(tokens, chunk: chunk, kvType: kvType)
        let difference = largestDifference(logits, whole)
        #expect(difference <= tolerance, "\(kvType), chunks of \(chunk): \(difference)")
      }
    }
  }

  /// How far few rows may be from many: not a bit, except where products of many rows go through matrix tiles, or
  /// their attention over a cache of half precision rounds otherwise.
  static func tolerance(_ name: String, _ set: InstructionSet, _ kvType: KVType = .f32) throws -> Float {
    let kernels = try set.kernels()
    var tolerance: Float = 0
    if kernels.multiply_tiles != nil {
      tolerance += name.contains("quantized") ? 0.1 : name.contains("bf16") ? 1e-4 : 0
    }
    if kernels.attend_tiles != nil && kvType != .f32 { tolerance += 0.08 }
    return tolerance
  }

  @Test(arguments: ["qwen2", "qwen2-quantized"], InstructionSet.available)
  func batchOfSequencesAgreesBitForBit(name: String, set: InstructionSet) throws {
    let fixture = try Fixture(name, set: set)
    let tokens = fixture.expected.tokens
    let prompts = [Array(tokens.prefix(9)), Array(tokens.suffix(20)), Array(tokens.prefix(1))]
    let state = try fixture.state()
    var batch = Batch()
    for prompt in prompts { batch.append(prompt, to: state.store.addSequence(), from: 0) }
    try fixture.decoder.forward(batch, state: state)
    let together = fixture.decoder.logits(rows: 0..<batch.tokens.count, state: state)
    let alone = try prompts.flatMap { try fixture.logits($0) }
    let tolerance = try Self.tolerance(name, set)
    #expect(largestDifference(together, alone) <= tolerance)
  }

  /// Up to fifteen sequences that are decoded together have the results of each alone; more of them, with quantised
  /// weights, results as near as 8 bits for activations allow.
  @Test(arguments: ["qwen2", "qwen2-quantized"], [15, 16, 17])
  func manySequencesTakeOnePlane(name: String, count: Int) throws {
    let fixture = try Fixture(name, set: .generic)
    let tokens = fixture.expected.tokens.prefix(count)
    let state = try fixture.state()
    var batch = Batch()
    for token in tokens { batch.append([token], to: state.store.addSequence(), from: 0) }
    try fixture.decoder.forward(batch, state: state)
    let together = fixture.decoder.logits(rows: 0..<count, state: state)
    let difference = largestDifference(together, try tokens.flatMap { try fixture.logits([$0]) })
    if count < 16 || name == "qwen2" {
      #expect(difference == 0)
    } else {
      #expect(difference > 0 && difference < 0.1)
    }
  }

  /// Only tokens that are decoded together give up precision, not short prompts that share a pass.
  @Test func manyPromptsKeepTheirPrecision() throws {
    let fixture = try Fixture("qwen2-quantized", set: .generic)
    let prompts = (0..<17).map { Array(fixture.expected.tokens[$0...$0 + 1]) }
    let state = try fixture.state()
    var batch = Batch()
    for prompt in prompts { batch.append(prompt, to: state.store.addSequence(), from: 0) }
    try fixture.decoder.forward(batch, state: state)
    let together = fixture.decoder.logits(rows: 0..<batch.tokens.count, state: state)
    #expect(try largestDifference(together, prompts.flatMap { try fixture.logits($0) }) == 0)
  }

  /// Quantised weights differ from the reference, which multiplies the dequantised ones, by the rounding of
  /// activations to 16 bits; tiles take weights and activations in bf16.
  @Test(arguments: InstructionSet.available)
  func quantizedWeightsStayClose(set: InstructionSet) throws {
    let fixture = try Fixture("qwen2-quantized", set: set)
    let expected = fixture.expected.values
    let logits = try fixture.logits(fixture.expected.tokens)
    let error = zip(logits, expected).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
    let power = expected.reduce(0) { $0 + $1 * $1 }
    let share = (error / power).squareRoot()
    #expect(share < (set == .amx ? 0.03 : 0.0005))
  }

  @Test func threadsDoNotChangeResults() throws {
    let one = try Fixture("qwen2", threads: 1)
    let three = try Fixture("qwen2", threads: 3)
    #expect(try one.logits(one.expected.tokens) == three.logits(three.expected.tokens))
  }

  @Test func halfPrecisionCachesStayClose() throws {
    let fixture = try Fixture("llama")
    let exact = fixture.expected.values
    #expect(largestDifference(try fixture.logits(fixture.expected.tokens, kvType: .f16), exact) < 0.02)
    #expect(largestDifference(try fixture.logits(fixture.expected.tokens, kvType: .bf16), exact) < 0.15)
  }

  @Test func truncatedSequenceContinuesAsIfNew() throws {
    let fixture = try Fixture("qwen2")
    let tokens = fixture.expected.tokens
    let state = try fixture.state()
    let sequence = state.store.addSequence()
    var first = Batch()
    first.append(tokens, to: sequence, from: 0)
    try fixture.decoder.forward(first, state: state)
    let before = fixture.decoder.logits(rows: [tokens.count - 1], state: state)
    state.store.truncate(sequence, to: 3)
    var rest = Batch()
    rest.append(tokens.dropFirst(3), to: sequence, from: 3)
    try fixture.decoder.forward(rest, state: state)
    #expect(fixture.decoder.logits(rows: [tokens.count - 4], state: state) == before)
  }

  /// Where no output is wanted the last layer does not attend, except in a slice of a deeper model.
  @Test(arguments: [false, true])
  func lastLayerOnlyStores(isSlice: Bool) throws {
    let fixture = try Fixture("qwen2")
    let folder = try #require(Bundle.module.url(forResource: "Fixtures/qwen2", withExtension: nil))
    let backend = ProfilingBackend(try CPUBackend(threads: 1, instructionSet: .generic))
    let whole = try DecoderModel(OpenedModel(path: folder.path), backend: backend)
    var configuration = whole.configuration
    configuration.isSlice = isSlice
    let decoder = DecoderModel(configuration: configuration, weights: whole.weights, backend: backend)
    let state = try RunState(configuration, backend: backend, kvType: .f32)
    let tokens = fixture.expected.tokens
    var batch = Batch()
    batch.append(tokens.dropLast(), to: state.store.addSequence(), from: 0)
    batch.wantsOutput = false
    _ = backend.takeProfile()
    try decoder.forward(batch, state: state)
    let calls = backend.takeProfile().entries[.attend]?.calls
    let attending = isSlice ? configuration.layerCount : configuration.layerCount - 1
    #expect(calls == attending)
    var last = Batch()
    last.append(tokens.suffix(1), to: 0, from: tokens.count - 1)
    try decoder.forward(last, state: state)
    let expected = try fixture.logits(tokens, chunk: tokens.count - 1).suffix(fixture.expected.vocabulary)
    #expect(largestDifference(decoder.logits(rows: [0], state: state), Array(expected)) == 0)
  }

  @Test func badBatchesAreRefused() throws {
    let fixture = try Fixture("llama")
    let state = try fixture.state()
    let sequence = state.store.addSequence()
    func error(_ tokens: [Int32], from position: Int) -> DecoderError? {
      var batch = Batch()
      batch.append(tokens, to: sequence, from: position)
      do {
        try fixture.decoder.forward(batch, state: state)
        return nil
      } catch {
        return error
      }
    }
    let size = fixture.decoder.configuration.vocabularySize
    let context = fixture.decoder.configuration.contextLength
    #expect(error([0, Int32(size)], from: 0) == .tokenOutOfRange(token: Int32(size), vocabularySize: size))
    #expect(error([-1], from: 0) == .tokenOutOfRange(token: -1, vocabularySize: size))
    #expect(error([0, 1], from: context - 1) == .contextExceeded(needed: context + 1, limit: context))
    #expect(error(Array(repeating: 0, count: 129), from: 0) == .tooManyRows(found: 129, limit: 128))
    #expect(error([0, 1], from: 1) == .positionsMissing(first: 1, stored: 0))
    #expect(state.store.byteCount == 0)
  }
}
