// Calibration of the tiny pair: the same plan every time, with and without interruption, and budgets that are kept.

import Foundation
import KindredAttention
import KindredAttentionMapping
import KindredCompute
import KindredTransformer
import Testing

/// A folder that goes when the test ends.
private final class TemporaryFolder {
  let path = NSTemporaryDirectory() + "kindred-calibration-\(UUID().uuidString)"

  init() throws { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true) }
  deinit { try? FileManager.default.removeItem(atPath: path) }

  func file(_ name: String) -> String { path + "/" + name }
}

private struct Interruption: Error {}

@Suite struct CalibrationTests {
  /// Texts that leave the pair something to attend to.
  private static let texts: [[Int32]] = (0..<2).map { number in
    var random = SeededGenerator(seed: UInt64(number))
    return (0..<200).map { _ in Int32.random(in: 0..<101, using: &random) }
  }

  private static func options(_ change: (inout CalibrationOptions) -> Void = { _ in }) -> CalibrationOptions {
    var options = CalibrationOptions()
    options.tokens = 240
    options.context = 48
    options.near = NearWindow(positions: 8, sinks: 2)
    options.choice = .units
    options.mixture = 2
    change(&options)
    return options
  }

  private static func calibration(
    _ options: CalibrationOptions, journal: String, texts: [[Int32]] = texts
  ) throws -> Calibration<CPUBackend> {
    let pair = try TinyPair(set: .generic)
    return try Calibration(
      large: pair.large, small: options.far == .small ? pair.small : nil, texts: texts, options: options,
      inputs: "large small", journalPath: journal)
  }

  @Test(arguments: [0.0, 0.3, 0.5, 1], CalibrationOptions.Granularity.allCases)
  func ratiosAreKept(ratio: Double, granularity: CalibrationOptions.Granularity) throws {
    let folder = try TemporaryFolder()
    let result = try Self.calibration(
      Self.options {
        $0.budget = .ratio(ratio)
        $0.granularity = granularity
      }, journal: folder.file("journal")
    ).run()
    let units = granularity == .group ? 6 : 3
    #expect(result.unitCount == units)
    #expect(result.mappedUnits == Int((ratio * Double(units)).rounded()))
    #expect(result.plan.mappedUnits.count == result.mappedUnits * 6 / units)
    #expect((result.divergence == 0) == (ratio == 0))
    #expect((result.perplexityFactor == 1) == (ratio == 0))
    #expect(result.plan.units.joined().allSatisfy { $0 == .own || $0.near == NearWindow(positions: 8, sinks: 2) })
  }

  @Test func pureMappingKeepsNoKeysAndRowsThatSumToOne() throws {
    let folder = try TemporaryFolder()
    let result = try Self.calibration(
      Self.options {
        $0.near = nil
        $0.budget = .ratio(0.5)
      }, journal: folder.file("journal")
    ).run()
    #expect(result.mappedUnits == 3)
    for unit in result.plan.units.joined() where unit != .own {
      guard case .mapped(nil, .small(let mixture)) = unit else {
        Issue.record("\(unit)")
        continue
      }
      #expect((1...2).contains(mixture.heads.count))
      for row in mixture.weights {
        #expect(row.allSatisfy { $0 >= 0 } && abs(row.reduce(0, +) - 1) < 1e-5)
      }
    }
  }

  /// Units are borrowed from the nearest lower layer that keeps its keys, or count nothing far away.
  @Test(arguments: [CalibrationOptions.Source.layer, .nothing], [nil, NearWindow(positions: 8, sinks: 2)])
  func plansNeedNoSmallModel(far: CalibrationOptions.Source, near: NearWindow?) throws {
    let folder = try TemporaryFolder()
    let options = Self.options {
      $0.far = far
      $0.near = near
    }
    guard far == .layer || near != nil else {
      #expect(throws: CalibrationError.self) { try Self.calibration(options, journal: folder.file("journal")) }
      return
    }
    let result = try Self.calibration(options, journal: folder.file("journal")).run()
    #expect(result.mappedUnits == 3)
    #expect(result.divergence > 0)
    let units = result.plan.units
    for (layer, group) in result.plan.mappedUnits {
      #expect(units[layer][group].near == near)
      guard case .mapped(_, let found) = units[layer][group] else { continue }
      let lower = (0..<layer).last { units[$0][group] == .own }
      #expect(found == (far == .nothing ? .nothing : .layer(lower ?? -1)))
    }
    let all = Self.options {
      $0.far = far
      $0.near = near
      $0.budget = .ratio(1)
    }
    let calibration = try Self.calibration(all, journal: folder.file("all"))
    if far == .layer {
      #expect(throws: CalibrationError.self) { try calibration.run() }
    } else {
      #expect(try calibration.run().mappedUnits == 6)
    }
  }

  /// Layers that do not differ need not run again.
  @Test(arguments: [
    AttentionPlan.Unit.mapped(near: NearWindow(positions: 8, sinks: 2), far: .layer(1)),
    .mapped(near: nil, far: .layer(1)), .mapped(near: NearWindow(positions: 8), far: .nothing),
    .borrowed([HeadIndex(layer: 0, head: 1), HeadIndex(layer: 1, head: 3), HeadIndex(layer: 0, head: 1)]),
  ])
  func runsFromALayerOnEqualWholeRuns(unit: AttentionPlan.Unit) throws {
    let pair = try TinyPair(set: .generic)
    let run = try WindowRun(
      Array(Self.texts[0].prefix(48)), pair: CalibrationPair(large: pair.large, small: pair.small, kvType: .f16))
    var plan = AttentionPlan.own(layers: 3, kvHeads: 2)
    var inputs: [[Float]] = []
    let unmapped = try run.run(plan) { inputs.append(pair.large.backend.read($0.hidden, rows: 0..<48)) }
    plan.units[2][1] = unit
    let whole = try run.run(plan)
    let layer = plan.lowestSource(from: 2)
    #expect(layer == (plan.sharedHeads(groupSize: 3).isEmpty ? 2 : 1))
    let part = try run.run(plan, from: layer, hidden: inputs[layer])
    let rows = { (state: RunState<CPUBackend>) in pair.large.backend.read(state.hidden, rows: 0..<48) }
    #expect(rows(part) == rows(whole))
    #expect(rows(whole) != rows(unmapped))
  }

  @Test func theSameInputsMakeTheSamePlan() throws {
    let folder = try TemporaryFolder()
    let plans = try (0..<2).map { try Self.calibration(Self.options(), journal: folder.file("\($0)")).run().plan }
    #expect(plans[0] == plans[1])
    #expect(
      try Data(contentsOf: URL(fileURLWithPath: folder.file("0")))
        == Data(contentsOf: URL(fileURLWithPath: folder.file("1"))))
    let windows = try (0..<2).map { seed in
      try Calibration<CPUBackend>.windows(of: Self.texts, options: Self.options { $0.seed = UInt64(seed) })
    }
    #expect(windows[0] != windows[1])
  }

  /// Interrupted after each piece of work in turn, a calibration ends with the plan and the journal of one that was not.
  @Test func interruptedCalibrationsGoOn() throws {
    let folder = try TemporaryFolder()
    let whole = try Self.calibration(Self.options(), journal: folder.file("whole")).run()
    var pieces = 0
    while true {
      let calibration = try Self.calibration(Self.options(), journal: folder.file("part"))
      var done = 0
      do {
        let result = try calibration.run { _ in
          done += 1
          if done > 1 { throw Interruption() }
        }
        #expect(result.plan == whole.plan)
        #expect(result.divergence == whole.divergence)
        break
      } catch is Interruption { pieces += 1 }
      try #require(pieces < 100)
    }
    #expect(pieces > 5)
    // Nothing was measured twice.
    #expect(
      try Set(String(contentsOfFile: folder.file("part"), encoding: .utf8).split(separator: "\n"))
        == Set(String(contentsOfFile: folder.file("whole"), encoding: .utf8).split(separator: "\n")))
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted() == ["part", "whole"])
  }

  /// Wherever the journal was cut off, what is left of it is used and the rest is found again.
  @Test func journalsThatWereCutOffAreReadAsFarAsTheyGo() throws {
    let folder = try TemporaryFolder()
    let whole = try Self.calibration(Self.options(), journal: folder.file("whole")).run()
    let content = try Data(contentsOf: URL(fileURLWithPath: folder.file("whole")))
    for share in [0, 1, 40, 75, 99] {
      try content.prefix(content.count * share / 100).write(to: URL(fileURLWithPath: folder.file("cut")))
      #expect(try Self.calibration(Self.options(), journal: folder.file("cut")).run().plan == whole.plan)
    }
    try Data("no journal\n{}".utf8).write(to: URL(fileURLWithPath: folder.file("cut")))
    #expect(throws: CalibrationError.self) { try Self.calibration(Self.options(), journal: folder.file("cut")) }
  }

  /// Another budget uses what was found; other inputs do not.
  @Test func journalsServeOtherBudgetsAndNoOtherInputs() throws {
    let folder = try TemporaryFolder()
    _ = try Self.calibration(Self.options(), journal: folder.file("journal")).run()
    let size = try Data(contentsOf: URL(fileURLWithPath: folder.file("journal"))).count
    let lower = try Self.calibration(Self.options { $0.budget = .ratio(0.3) }, journal: folder.file("journal")).run()
    let fresh = try Self.calibration(Self.options { $0.budget = .ratio(0.3) }, journal: folder.file("x")).run()
    #expect(lower.plan == fresh.plan)
    #expect(try Data(contentsOf: URL(fileURLWithPath: folder.file("journal"))).count > size)
    _ = try Self.calibration(Self.options { $0.seed = 1 }, journal: folder.file("journal"))
    #expect(try Data(contentsOf: URL(fileURLWithPath: folder.file("journal"))).count < 200)
  }

  /// Of the keys as many are dropped as a ratio says; windows differ, and other ratios need no unit measured again.
  @Test(arguments: [CalibrationOptions.Source.small, .nothing], CalibrationOptions.Granularity.allCases)
  func windowsAreSpread(far: CalibrationOptions.Source, granularity: CalibrationOptions.Granularity) throws {
    let folder = try TemporaryFolder()
    func run(_ ratio: Double) throws -> CalibrationResult {
      let options = Self.options {
        ($0.choice, $0.far, $0.granularity, $0.budget) = (.windows, far, granularity, .ratio(ratio))
      }
      return try Self.calibration(options, journal: folder.file("journal")).run()
    }
    func journal() throws -> Data { try Data(contentsOf: URL(fileURLWithPath: folder.file("journal"))) }
    func lengths(_ result: CalibrationResult) -> [Int?] { result.plan.units.joined().map { $0.near?.positions } }
    let half = try run(0.5)
    #expect(half.droppedKeys >= 0.5 && half.droppedKeys < 0.6)
    #expect(Set(lengths(half)).count > 1 && half.divergence > 0 && half.expectedDivergence == nil)
    let kept = lengths(half).reduce(0) { $0 + ($1.map { $0 + 2 } ?? 48) }
    #expect(abs(half.droppedKeys - (1 - Double(kept) / (6 * 48))) < 1e-9)
    let measured = try journal()
    let again = try run(0.5)
    #expect(again.plan == half.plan && again.divergence == half.divergence)
    #expect(try journal() == measured)
    // 8 positions and 2 sinks are kept at least.
    let all = try run(1)
    #expect(all.droppedKeys >= 1 - 10.0 / 48 && all.droppedKeys < 1 - 8.0 / 48)
    #expect(zip(lengths(half), lengths(all)).allSatisfy { $0 ?? 48 >= $1 ?? 48 })
    let windows = try Self.calibration(Self.options(), journal: folder.file("x")).keptBackWindows.count
    #expect(try journal().count(where: { $0 == 10 }) == measured.count(where: { $0 == 10 }) + windows)
    let none = try run(0)
    #expect(none.droppedKeys == 0 && none.plan.mappedUnits.isEmpty && none.divergence == 0)
    #expect(none.kvBytes == none.unmappedKVBytes)
  }

  @Test func budgetsOfWindowsAreKept() throws {
    let folder = try TemporaryFolder()
    func run(
      _ budget: CalibrationOptions.Budget, far: CalibrationOptions.Source = .nothing
    ) throws -> CalibrationResult {
      let options = Self.options { ($0.choice, $0.far, $0.budget) = (.windows, far, budget) }
      return try Self.calibration(options, journal: folder.file("\(far).journal")).run()
    }
    let (half, all) = (try run(.ratio(0.5)), try run(.ratio(1)))
    #expect(all.divergence > half.divergence)
    let bytes = try run(.bytes(half.kvBytes))
    #expect(bytes.kvBytes <= half.kvBytes && bytes.droppedKeys <= half.droppedKeys)
    #expect(try run(.bytes(1 << 30)).droppedKeys == 0)
    #expect(throws: CalibrationError.self) { try run(.bytes(1)) }
    // Where the small model's cache is more than mapping saves, nothing is mapped.
    let mapped = try run(.ratio(1), far: .small)
    try #require(mapped.kvBytes > mapped.unmappedKVBytes)
    #expect(try run(.bytes(mapped.unmappedKVBytes), far: .small).kvBytes == mapped.unmappedKVBytes)
    let some = try run(.divergence(half.divergence))
    #expect(some.divergence <= half.divergence && some.droppedKeys > 0.4)
    #expect(try run(.divergence(all.divergence)).plan == all.plan)
    #expect(try run(.divergence(1e-30)).droppedKeys == 0)
  }

  @Test func divergenceBudgetsAreKept() throws {
    let folder = try TemporaryFolder()
    func run(_ budget: CalibrationOptions.Budget) throws -> CalibrationResult {
      try Self.calibration(Self.options { $0.budget = budget }, journal: folder.file("journal")).run()
    }
    let all = try run(.ratio(1))
    #expect(try run(.divergence(all.divergence * 2)).mappedUnits == 6)
    let some = try run(.divergence(all.divergence / 4))
    #expect((1..<6).contains(some.mappedUnits))
    #expect(some.divergence <= all.divergence / 4)
    #expect(try run(.divergence(1e-30)).mappedUnits == 0)
  }

  @Test func byteBudgetsAreKept() throws {
    let folder = try TemporaryFolder()
    func run(_ bytes: Int) throws -> CalibrationResult {
      try Self.calibration(Self.options { $0.budget = .bytes(bytes) }, journal: folder.file("journal")).run()
    }
    let unmapped = try run(1 << 30)
    #expect(unmapped.mappedUnits == 0)
    #expect(unmapped.kvBytes == unmapped.unmappedKVBytes)
    // 3 layers of keys and values for 2 KV heads of 8 elements in f16 at 48 positions.
    #expect(unmapped.kvBytes == 3 * 2 * 2 * 8 * 2 * 48)
    #expect(throws: CalibrationError.self) { try run(1) }
  }

  /// A budget takes the units that a ratio takes which needs as many bytes.
  @Test func byteBudgetsTakeTheBestUnits() throws {
    let folder = try TemporaryFolder()
    func run(_ budget: CalibrationOptions.Budget, unit: CalibrationOptions.Granularity) throws -> CalibrationResult {
      let options = Self.options { ($0.far, $0.budget, $0.granularity) = (.nothing, budget, unit) }
      return try Self.calibration(options, journal: folder.file("\(unit).journal")).run()
    }
    for unit in CalibrationOptions.Granularity.allCases {
      let half = try run(.ratio(0.5), unit: unit)
      let budget = try run(.bytes(half.kvBytes), unit: unit)
      #expect(budget.plan == half.plan)
      #expect(half.kvBytes < half.unmappedKVBytes)
    }
  }

  /// The small model's keys and values take the bytes of their own type, and lend what they say.
  @Test func theSmallModelsTypeCounts() throws {
    let folder = try TemporaryFolder()
    func run(_ type: KVType?) throws -> CalibrationResult {
      try Self.calibration(
        Self.options {
          $0.budget = .ratio(1)
          $0.smallKVType = type
        }, journal: folder.file(type?.rawValue ?? "default")
      ).run()
    }
    let (half, same, whole) = (try run(nil), try run(.f16), try run(.f32))
    #expect(half.kvBytes == same.kvBytes && half.plan == same.plan && half.divergence == same.divergence)
    #expect(half.plan.lenderDepth == whole.plan.lenderDepth)
    // Keys and values take 2 bytes more for each element at 48 positions.
    let lender = try TinyPair(set: .generic).small.configuration.attention
    #expect(
      whole.kvBytes - half.kvBytes == whole.plan.lenderDepth * 2 * lender.kvHeads * lender.headDimension * 2 * 48)
    #expect(whole.divergence != half.divergence)
  }

  /// Every text has a say in the choice, as far as windows are left to fit.
  @Test func everyTextChooses() throws {
    let folder = try TemporaryFolder()
    func choosing(_ tokens: Int, texts: Int) throws -> [Int] {
      try Self.calibration(
        Self.options { $0.tokens = tokens }, journal: folder.file("\(tokens) \(texts)"),
        texts: Array(repeating: Self.texts[0], count: texts)
      ).choosingWindows
    }
    #expect(try choosing(480, texts: 3) == [0, 1, 2])
    #expect(try choosing(960, texts: 5) == [0, 1, 2, 3, 4])
    #expect(try choosing(144, texts: 3) == [0, 1])
    #expect(try choosing(144, texts: 1) == [0])
  }

  /// A quarter of 20 windows chooses units, an eighth lengths.
  @Test(arguments: [(CalibrationOptions.Choice.windows, 2), (.units, 5)])
  func moreWindowsChooseUnitsThanLengths(choice: CalibrationOptions.Choice, count: Int) throws {
    let options = Self.options {
      $0.tokens = 960
      $0.choice = choice
    }
    let text = Array(repeating: Self.texts[0], count: 5).flatMap(\.self)
    let folder = try TemporaryFolder()
    let calibration = try Self.calibration(options, journal: folder.file("journal"), texts: [text])
    #expect(calibration.choosingWindows == Array(0..<count))
  }

  /// About 1,024 rows of all windows together, but no fewer than 64 of each.
  @Test(arguments: [(12, 85), (100, 64)])
  func windowsGiveEnoughRowsToFit(windows: Int, count: Int) throws {
    let options = Self.options {
      $0.tokens = 288
      $0.context = 96
      $0.near = nil
    }
    let folder = try TemporaryFolder()
    let rows = try Self.calibration(options, journal: folder.file("journal")).fittedRows(window: 0, of: windows)
    #expect(rows.count == count && Set(rows).count == count && rows == rows.sorted())
    #expect(rows.allSatisfy { (0..<96).contains($0) })
  }

  private typealias Change = @Sendable (inout CalibrationOptions) -> Void

  private static let badOptions: [(String, Change)] = {
    let tokens: Change = { $0.tokens = 100 }
    let context: Change = { $0.context = 8 }
    let mixture: Change = { $0.mixture = 0 }
    let window: Change = { $0.near = NearWindow(positions: 0) }
    let sinks: Change = { $0.near = NearWindow(positions: 1, sinks: -1) }
    let both: Change = { $0.near = NearWindow(positions: 47, sinks: 1) }
    let ratio: Change = { $0.budget = .ratio(1.5) }
    let noRatio: Change = { $0.budget = .ratio(.nan) }
    let bytes: Change = { $0.budget = .bytes(0) }
    let divergence: Change = { $0.budget = .divergence(-1) }
    let text: Change = { $0.tokens = 4_800 }
    let long: Change = { ($0.context, $0.tokens) = (300, 900) }
    return [
      ("tokens", tokens), ("context", context), ("mixture", mixture), ("near-window", window), ("sinks", sinks),
      ("near-window and sinks", both), ("ratio", ratio), ("ratio", noRatio), ("kv-budget", bytes),
      ("max-kl", divergence), ("text", text), ("context: expected at most", long),
    ]
  }()

  @Test(arguments: badOptions.indices)
  func badOptionsGetALine(number: Int) throws {
    let (start, change) = Self.badOptions[number]
    let folder = try TemporaryFolder()
    do {
      _ = try Self.calibration(Self.options(change), journal: folder.file("journal"))
      Issue.record("accepted")
    } catch let error as CalibrationError {
      #expect(error.description.hasPrefix(start), "\(error)")
    }
  }

  @Test func journalsThatCannotBeWrittenAreNamed() {
    #expect(throws: CalibrationError.self) { try Self.calibration(Self.options(), journal: "/no/such/folder/journal") }
  }
}
