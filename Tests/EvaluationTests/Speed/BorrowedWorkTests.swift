// The arithmetic of what borrowing saves, against a case counted by hand.

import KindredAttention
import KindredCompute
import KindredEvaluation
import KindredTransformer
import Testing

@Suite struct BorrowedWorkTests {
  /// 4 query heads of 8 elements over 2 KV heads; the second of two layers borrows from heads of 4 elements.
  static let shape = AttentionShape(queryHeads: 4, kvHeads: 2, headDimension: 8)
  static let first = HeadIndex(layer: 0, head: 0)
  static let second = HeadIndex(layer: 0, head: 1)

  func work(_ lastLayer: [AttentionPlan.Unit], lastLayerAttends: Bool = true) -> BorrowedWork {
    BorrowedWork(
      plan: AttentionPlan(units: [[.own, .own], lastLayer]), shape: Self.shape, smallDimension: 4,
      lastLayerAttends: lastLayerAttends)
  }

  static let borrowing: [AttentionPlan.Unit] = [.borrowed([first, first]), .borrowed([first, second])]

  var mapped: BorrowedWork { work(Self.borrowing) }

  /// Queries, keys, and values of twice the bits: a quarter of the operations, two fifths of the bytes.
  static let products = [(32, 320), (16, 160), (16, 320)].map { outputs, bytes in
    ProfiledProduct(matrix: MatrixShape(type: .q8_0, outputs: outputs, inputs: 32, byteCount: bytes))
  }

  func isClose(_ value: Double, _ expected: Double) -> Bool { abs(value - expected) < 1e-12 }

  @Test func prefill() {
    // 4 tokens, 2 of them unmapped: half of the rows, and 3 of 10 pairs of row and position.
    let steps = BorrowedWork.Steps.prefill(tokens: 4, unmapped: 2)
    // Half the layers, half the rows.
    #expect(isClose(mapped.remaining(.queryKeyValue, in: steps, products: Self.products), 1 - 0.25 * 0.75))
    // The mapped layer: 2 tiles of 4 and 3 products of 8, instead of 2 · 4 · 8.
    #expect(isClose(mapped.remaining(.attention, in: steps), 1 - 0.7 * (1 - (1 + 32.0 / 64) / 2)))
    #expect(isClose(mapped.remaining(.rotation, in: steps), 0.75))
    #expect(isClose(mapped.remaining(.keyStorage, in: steps), 0.75))
    #expect(mapped.remaining(.down, in: steps) == 1)
    #expect(mapped.remaining(.attention, in: .prefill(tokens: 4, unmapped: 9)) == 1)
  }

  /// Borrowing in a last layer that does not attend saves nothing of a prompt, and of a token as much as ever.
  @Test func lastLayerOfAWholeModel() {
    let whole = work(Self.borrowing, lastLayerAttends: false)
    let steps = BorrowedWork.Steps.prefill(tokens: 4, unmapped: 2)
    #expect(whole.remaining(.queryKeyValue, in: steps, products: Self.products) == 1)
    #expect(whole.remaining(.attention, in: steps) == 1)
    #expect(whole.remaining(.attention, in: .decode) == mapped.remaining(.attention, in: .decode))
  }

  @Test func decode() {
    #expect(isClose(mapped.remaining(.queryKeyValue, in: .decode, products: Self.products), 1 - 0.5 * 0.6))
    #expect(isClose(mapped.remaining(.attention, in: .decode), 0.75))
    #expect(isClose(mapped.remaining(.rotation, in: .decode), 0.5))
    #expect(mapped.remaining(.output, in: .decode) == 1)
  }

  /// Where one of two KV heads borrows, queries and keys are still computed.
  @Test func halfALayer() {
    let half = work([.own, .borrowed([Self.first, Self.second])])
    #expect(half.remaining(.queryKeyValue, in: .decode, products: Self.products) == 1)
    #expect(isClose(half.remaining(.attention, in: .decode), (1 + 0.75) / 2))
    // Own 2 · 2 · 8 operations a pair, 2 tiles of 4, 2 products of 8, of 64.
    #expect(
      isClose(half.remaining(.attention, in: .prefill(tokens: 4, unmapped: 0)), (1 + (32.0 + 8 + 16) / 64) / 2))
  }
}

@Suite struct ProfileTests {
  /// 14 query heads of 64 elements over 2 KV heads, hidden states of 896 elements, 4864 in the feed-forward part.
  let model: DecoderConfiguration
  let queryKeyValue = ProfiledOperation.multiply(
    [128, 896, 128].map {
      ProfiledProduct(matrix: MatrixShape(type: .q8_0, outputs: $0, inputs: 896, byteCount: $0 * 896))
    })

  init() throws { model = try RandomModel("random:qwen2-0.5b:layers=1").configuration }

  func multiply(_ outputs: Int, _ inputs: Int, count: Int = 1, accumulates: Bool = false) -> ProfiledOperation {
    .multiply(
      Array(
        repeating: ProfiledProduct(
          matrix: MatrixShape(type: .q8_0, outputs: outputs, inputs: inputs, byteCount: outputs * inputs),
          accumulates: accumulates),
        count: count))
  }

  @Test func productsAreToldApart() {
    var profile = OperationProfile()
    let products: [(ProfiledOperation, ModelPart)] = [
      (queryKeyValue, .queryKeyValue), (multiply(128, 896), .value), (multiply(128, 896, count: 2), .value),
      (multiply(896, 896, accumulates: true), .attentionOutput), (multiply(4864, 896, count: 2), .gateUp),
      (multiply(896, 4864, accumulates: true), .down), (multiply(151_936, 896), .output),
      (multiply(7, 7), .otherProducts),
    ]
    for (operation, _) in products { profile.add(operation, rows: 5, seconds: 0.5) }
    profile.add(.normalize, seconds: 0.25)
    profile.add(.normalize, seconds: 0.25)
    let steps = StepProfile(profile, of: model, steps: 2, otherSeconds: 1)
    #expect(Set(steps.rows.map(\.part)) == Set(products.map(\.1) + [.norm, .rest]))
    #expect(steps.secondsPerStep == 2.75)
    #expect(abs(steps.rows.reduce(0) { $0 + $1.share } - 1) < 1e-12)
    let norm = steps.rows.first { $0.part == .norm }
    #expect(norm?.callsPerStep == 1 && norm?.secondsPerStep == 0.25 && norm?.operationsPerSecond == nil)
    let gateUp = steps.rows.first { $0.part == .gateUp }
    #expect(gateUp?.operationsPerSecond == Double(2 * 2 * 4864 * 896 * 5) / 0.5)
    #expect(gateUp?.weightBytesPerSecond == Double(2 * 4864 * 896) / 0.5)
  }

  /// Two parts that change by a half and a quarter, one that does not, and a small model at a tenth.
  @Test func savingIsPredictedFromWhatWasMeasured() throws {
    var unmapped = PhaseProfile(seconds: 12)
    unmapped.large.add(queryKeyValue, rows: 1, seconds: 2)
    unmapped.large.add(.attend, seconds: 4)
    unmapped.large.add(multiply(896, 4864, accumulates: true), rows: 1, seconds: 5)
    var mapped = PhaseProfile(seconds: 30)
    mapped.large.add(queryKeyValue, rows: 1, seconds: 0.5)
    mapped.large.add(multiply(128, 896), rows: 1, seconds: 0.75)
    mapped.large.add(.attend, seconds: 2)
    mapped.large.add(.borrow, seconds: 1.25)
    mapped.large.add(.pack, seconds: 0.25)
    mapped.large.add(multiply(896, 4864, accumulates: true), rows: 1, seconds: 5.5)
    mapped.small.add(.attend, seconds: 10)
    mapped.small.add(.probabilities, seconds: 2)
    let comparison = Comparison(unmapped: unmapped, mapped: mapped, model: model, smallShare: 0.1) { part, _ in
      switch part {
      case .queryKeyValue: 0.5
      case .attention: 0.75
      default: 1
      }
    }
    let saving = Saving([comparison], steps: 2)
    #expect(abs(saving.unmappedSeconds.median - 6) < 1e-12)
    // 2 · 0.5 + 4 · 0.75 + 5, 1 outside of operations, a tenth of 10
    #expect(abs(saving.predictedSeconds.median - 11.0 / 2) < 1e-12)
    // 0.5 + 0.75 + 2 + 1.25 + 0.25 + 5.5, 7.75 outside of operations, a tenth of 12
    #expect(abs(saving.measuredSeconds.median - 19.2 / 2) < 1e-12)
    #expect(abs(saving.predictedGain - 12.0 / 11) < 1e-12)
    #expect(abs((saving.reached ?? 0) - (12 - 19.2) / 1) < 1e-9)
    // 6 became 1 + 3 + 1 and 1.25 + 3.25 + 0.25 + 1.2
    #expect(abs(saving.predictedChange - 1.0 / 2) < 1e-12)
    #expect(abs(saving.measuredChange - (6 - 5.95) / 2) < 1e-12)
    let attention = try #require(saving.rows.first { $0.part == "attention" })
    #expect(attention.unmappedSeconds == 2 && attention.predictedSeconds == 1.5 && attention.measuredSeconds == 1.625)
  }
}
