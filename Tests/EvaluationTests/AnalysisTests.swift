// The paper's analyses on the tiny pair of `AttentionMappingTests/make_fixtures.py`: what they write, and that their
// figures are those of slow recomputations.

import Foundation
import KindredAttention
import KindredAttentionMapping
import KindredCompute
import KindredEvaluation
import KindredGeneration
import KindredKVStore
import KindredTransformer
import Testing

/// The tiny pair: 3 layers of 6 heads and 2 KV heads; the small model has 2 layers of 4 heads.
private struct TinyPair {
  struct Expected: Decodable {
    let tokens: [Int32]
    let similarity: Data
    let map: [Int]
  }

  let expected: Expected
  var pair: AnalysedPair<CPUBackend>

  init() throws {
    let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .appendingPathComponent("AttentionMappingTests/Fixtures/pair")
    expected = try JSONDecoder().decode(
      Expected.self, from: Data(contentsOf: folder.appendingPathComponent("expected.json")))
    let backend = try CPUBackend(threads: 2)
    func decoder(_ name: String) throws -> DecoderModel<CPUBackend> {
      try DecoderModel(OpenedModel(path: folder.appendingPathComponent(name).path), backend: backend)
    }
    pair = AnalysedPair(large: try decoder("large"), small: try decoder("small"), kvType: .f32)
    pair.establishmentTokens = 20
  }

  /// As many tokens as a test wants.
  func text(_ count: Int, seed: Int = 0) -> [Int32] { (0..<count).map { Int32(($0 * $0 * 7 + $0 * seed) % 101) } }

  /// `[18][8]`: PyTorch's cosines over the first 20 of the expected tokens.
  var cosines: [[Double]] {
    let values = expected.similarity.withUnsafeBytes { $0.bindMemory(to: Float.self).map(Double.init) }
    return stride(from: 0, to: values.count, by: 8).map { Array(values[$0..<$0 + 8]) }
  }

  /// The maps of all heads of a model, row by row up to the diagonal.
  func maps(_ model: DecoderModel<CPUBackend>, _ tokens: [Int32]) throws -> [[[Double]]] {
    let state = try RunState(model.configuration, backend: model.backend, rowCapacity: tokens.count, kvType: .f32)
    let layers = 0..<model.configuration.layerCount
    let record = try LentAttention(
      backend: model.backend, store: state.store, layers: layers, rowCapacity: tokens.count)
    var batch = Batch()
    batch.append(tokens, to: state.store.addSequence(), from: 0)
    try model.forward(batch, state: state, lending: record)
    let pages = (tokens.count + 63) / 64
    return try layers.flatMap { layer in
      try (0..<model.configuration.attention.queryHeads).map { head in
        let tiles = model.backend.read(
          try record.rows(of: HeadIndex(layer: layer, head: head), runs: batch.runs), rows: 0..<pages * tokens.count)
        return tokens.indices.map { row in
          (0...row).map { Double(tiles[($0 / 64 * tokens.count + row) * 64 + $0 % 64]) }
        }
      }
    }
  }
}

@Suite struct AnalysisTests {
  private let tiny: TinyPair

  init() throws { tiny = try TinyPair() }

  func run(_ analysis: any Analysis, _ texts: [[Int32]]) throws -> AnalysisReport {
    try analysis.run(tiny.pair, texts: texts) { share, step in
      #expect((0...1).contains(share) && !step.isEmpty)
    }
  }

  /// Writes a report and reads its tables from the CSV files: columns and rows of text.
  func written(_ report: AnalysisReport, figures: [String]) throws -> [String: (columns: [String], rows: [[String]])] {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("kindred-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let (files, withoutFigures) = try report.write(to: folder.path)
    let there = try FileManager.default.contentsOfDirectory(atPath: folder.path)
    #expect(Set(there) == Set(files))
    #expect(files.contains("\(report.name).json"))
    if withoutFigures == nil {
      for figure in figures {
        let svg = try String(contentsOf: folder.appendingPathComponent("\(figure).svg"), encoding: .utf8)
        #expect(svg.contains("<svg") && svg.contains("</svg>"), "\(figure)")
      }
    } else {
      #expect(!files.contains { $0.hasSuffix(".svg") })
      #expect(withoutFigures?.description.contains("expected gnuplot on the path") == true)
    }
    let json = try JSONSerialization.jsonObject(
      with: Data(contentsOf: folder.appendingPathComponent("\(report.name).json")))
    let tables = try #require((json as? [String: Any])?["tables"] as? [String: [[String: Any]]])
    var result: [String: (columns: [String], rows: [[String]])] = [:]
    for table in report.tables {
      let csv = try String(contentsOf: folder.appendingPathComponent("\(table.name).csv"), encoding: .utf8)
      let lines = csv.split(separator: "\n").map {
        $0.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
      }
      #expect(lines.allSatisfy { $0.count == table.columns.count } && lines.count == table.rows.count + 1)
      result[table.name] = (lines[0], Array(lines.dropFirst()))
      #expect(table.isMatrix ? tables[table.name] == nil : tables[table.name]?.count == table.rows.count)
    }
    return result
  }

  func isClose(_ value: Double, _ expected: Double, _ tolerance: Double = 1e-4) -> Bool {
    abs(value - expected) < tolerance
  }

  func mean(_ values: some Collection<Double>) -> Double { values.reduce(0, +) / Double(values.count) }

  // MARK: Maps

  @Test func similarityIsPyTorchs() throws {
    let report = try run(SimilarityAnalysis(), [tiny.expected.tokens])
    let tables = try written(report, figures: ["similarity-heads", "similarity-layers"])
    let heads = try #require(tables["similarity-heads"])
    #expect(heads.columns.count == 9 && heads.columns[5] == "small_1.0" && heads.rows[7][0] == "1.1")
    let cosines = tiny.cosines
    for (row, expected) in zip(heads.rows, cosines) {
      #expect(zip(row.dropFirst(), expected).allSatisfy { isClose(Double($0) ?? .nan, $1) })
    }
    let layers = try #require(tables["similarity-layers"]).rows
    #expect(layers.count == 3)
    let block = cosines[6..<12].flatMap { $0[4..<8] }
    #expect(isClose(Double(layers[1][2]) ?? .nan, mean(block)))
    let best = tiny.expected.map.enumerated().map { cosines[$0][$1] }
    #expect(isClose(report.findings[0].value, mean(best)))
    #expect(isClose(report.findings[1].value, mean(cosines.joined())))
    let byLayer = try #require(tables["similarity-best"]).rows
    #expect(isClose(Double(byLayer[2][1]) ?? .nan, mean(best[12..<18])))
  }

  /// Several windows are as one long text of which no window sees another.
  @Test func windowsArePooled() throws {
    var analysis = SimilarityAnalysis()
    analysis.windows = 2
    let text = tiny.text(40)
    let report = try run(analysis, [text])
    func entries(_ model: DecoderModel<CPUBackend>, _ head: Int) throws -> [Double] {
      try [0..<20, 20..<40].flatMap { try tiny.maps(model, Array(text[$0]))[head].flatMap(\.self) }
    }
    let (a, b) = (try entries(tiny.pair.large, 8), try entries(tiny.pair.small, 5))
    let table = try #require(report.tables.first { $0.name == "similarity-heads" })
    guard case .number(let found) = table.rows[8][6] else { return #expect(Bool(false)) }
    #expect(isClose(found, cosine(a, b)))
  }

  func cosine(_ a: [Double], _ b: [Double]) -> Double {
    func product(_ a: [Double], _ b: [Double]) -> Double { zip(a, b).reduce(0) { $0 + $1.0 * $1.1 } }
    return product(a, b) / (product(a, a) * product(b, b)).squareRoot()
  }

  @Test func usageCountsTheMap() throws {
    var analysis = UsageAnalysis()
    analysis.windows = 1
    let report = try run(analysis, [tiny.expected.tokens])
    let rows = try #require(try written(report, figures: ["usage"])["usage"]).rows
    var counts = Array(repeating: 0, count: 8)
    for head in tiny.expected.map { counts[head] += 1 }
    #expect(rows.count == 8)
    for row in rows {
      let values = row.compactMap(Double.init)
      let count = counts[Int(values[0]) * 4 + Int(values[1])]
      #expect(Int(values[2]) == count && isClose(values[3], Double(count) / 18))
    }
    let values = report.findings.map(\.value)
    #expect(Int(values[0]) == Set(tiny.expected.map).count)
    #expect(isClose(values[1], Double(counts.max() ?? 0) / 18))
    let shares = counts.map { Double($0) / 18 }
    #expect(isClose(values[3], -shares.filter { $0 > 0 }.reduce(0) { $0 + $1 * log2($1) } / 3))
    // Gini's mean difference over twice the mean.
    let differences = counts.flatMap { first in counts.map { Double(abs(first - $0)) } }
    #expect(isClose(values[4], mean(differences) / (2 * mean(counts.map(Double.init)))))
  }

  /// Greedy, against a session stepped by hand and maps compared entry by entry.
  @Test func consistencyIsThatOfWholeMaps() throws {
    var analysis = ConsistencyAnalysis()
    analysis.tokens = 50
    analysis.every = 20
    analysis.temperature = 0
    let report = try run(analysis, [tiny.expected.tokens])
    let tables = try written(report, figures: ["consistency-steps", "consistency-layers"])
    let steps = try #require(tables["consistency-steps"]).rows
    #expect(steps.map(\.[0]) == ["20", "40", "50"])
    let layers = try #require(tables["consistency-layers"]).rows
    #expect(layers.count == 3)

    var options = Session<CPUBackend>.Options()
    options.kvType = .f32
    let session = try Session(decoder: tiny.pair.large, options: options)
    var logits = try session.append(Array(tiny.expected.tokens.prefix(20)))
    while session.tokens.count < 70 { logits = try session.append([Sampler.mostLikely(logits)]) }
    let large = try tiny.maps(tiny.pair.large, session.tokens)
    let small = try tiny.maps(tiny.pair.small, session.tokens)
    func figures(_ heads: Range<Int>, _ rows: Range<Int>) -> [Double] {
      let found = heads.map { head in
        let own = large[head][rows].flatMap(\.self)
        let values = small.map { cosine(own, $0[rows].flatMap(\.self)) }
        let best = values.indices.max { values[$0] < values[$1] } ?? 0
        let kept = tiny.expected.map[head]
        return (same: best == kept ? 1.0 : 0, best: values[best], kept: values[kept])
      }
      return [
        mean(found.map(\.same)), mean(found.map(\.best)), mean(found.map(\.kept)),
        mean(found.map { $0.best - $0.kept }),
      ]
    }
    func agree(_ row: [String], _ expected: [Double]) -> Bool {
      zip(row.dropFirst(), expected).allSatisfy { isClose(Double($0) ?? .nan, $1, 1e-3) }
    }
    #expect(agree(steps[1], figures(0..<18, 40..<60)) && agree(steps[2], figures(0..<18, 60..<70)))
    #expect(agree(layers[1], figures(6..<12, 20..<70)))
    #expect(agree([""] + report.findings.map { "\($0.value)" }, figures(0..<18, 20..<70)))
    #expect(report.findings[0].value < 1 && report.findings[3].value > 0)
  }

  @Test func drawsDependOnTheSeed() throws {
    func findings(_ seed: UInt64) throws -> [AnalysisReport.Finding] {
      var analysis = ConsistencyAnalysis()
      analysis.tokens = 10
      analysis.every = 10
      analysis.seed = seed
      return try run(analysis, [tiny.expected.tokens]).findings
    }
    #expect(try findings(1) == findings(1))
    #expect(try findings(1) != findings(2))
  }

  // MARK: Perplexity

  /// Windows of 40 tokens, two of them.
  var windows: ComparisonWindows {
    var windows = ComparisonWindows()
    windows.context = 40
    windows.maxWindows = 2
    return windows
  }

  /// One recipe by itself.
  func alone(_ recipe: PaperRecipe, _ text: [Int32]) throws -> PerplexityResult {
    var recipe = recipe
    recipe.establishmentTokens = 20
    recipe.minimumTokens = 20
    var options = PerplexityOptions()
    options.context = 40
    options.stride = 40
    options.maxWindows = 2
    options.scoreFrom = 20
    options.chunk = 7
    var sessionOptions = Session<CPUBackend>.Options()
    sessionOptions.kvType = .f32
    return try PerplexityEvaluation(
      tiny.pair.large, mappings: [.established(small: tiny.pair.small, recipe: recipe)], options: options,
      sessionOptions: sessionOptions
    ).runAll(text)[0]
  }

  /// Log-perplexity, factor, divergence and agreement, from a column on.
  func agrees(_ row: [String], from column: Int, _ result: PerplexityResult) -> Bool {
    let expected = [
      result.nll, result.perplexity / (result.unmappedPerplexity ?? .nan), result.klToUnmapped ?? .nan,
      result.top1Agreement ?? .nan,
    ]
    return zip(row[column...], expected).allSatisfy { isClose(Double($0) ?? .nan, $1) }
  }

  @Test func layersAreMappedAlone() throws {
    var analysis = LayerAnalysis()
    analysis.windows = windows
    analysis.unit = .layer
    let texts = [tiny.text(100), tiny.text(90, seed: 3)]
    let report = try run(analysis, texts)
    let table = try #require(try written(report, figures: ["layers", "layers_2"])["layers"])
    #expect(table.columns.count == 11 && table.rows.map(\.[0]) == ["0", "1", "2"])
    for layer in 0..<3 {
      for (number, text) in texts.enumerated() {
        let result = try alone(PaperRecipe(layers: .explicit([layer])), text)
        #expect(agrees(table.rows[layer], from: 1 + 5 * number, result))
        #expect(isClose(Double(table.rows[layer][5 + 5 * number]) ?? .nan, 1 / result.nll))
      }
    }
    let inverses = [5, 10].map { column in table.rows.compactMap { Double($0[column]) } }
    let centred = inverses.map { values in values.map { $0 - mean(values) } }
    #expect(isClose(try #require(report.findings.last).value, cosine(centred[0], centred[1])))
    #expect(report.findings.last?.paper == "0.741 (MMLU and 1/log-ppl)")
  }

  @Test func blocksAndGroupsAreMappedAlone() throws {
    var analysis = LayerAnalysis()
    analysis.windows = windows
    analysis.unit = .blocks(2)
    let text = tiny.text(100)
    let blocks = try #require(try written(try run(analysis, [text]), figures: ["layers"])["layers"]).rows
    #expect(blocks.map(\.[0]) == ["0", "1-2"])
    #expect(agrees(blocks[1], from: 1, try alone(PaperRecipe(layers: .explicit([1, 2])), text)))
    analysis.unit = .group
    let groups = try run(analysis, [text]).tables[0].rows
    #expect(groups.map(\.[0]) == ["0.0", "0.1", "1.0", "1.1", "2.0", "2.1"].map { .text($0) })
    var recipe = PaperRecipe(layers: .explicit([1]))
    recipe.groups = [1]
    guard case .number(let divergence) = groups[3][3] else { return #expect(Bool(false)) }
    #expect(isClose(divergence, try #require(try alone(recipe, text).klToUnmapped)) && divergence > 0)
    analysis.unit = .blocks(4)
    #expect(throws: RecipeError.self) { try run(analysis, [text]) }
  }

  @Test func strategiesAreCompared() throws {
    var analysis = StrategyAnalysis()
    analysis.windows = windows
    let text = tiny.text(100)
    let report = try run(analysis, [text])
    let table = try #require(try written(report, figures: ["strategies", "strategies-kl"])["strategies"])
    #expect(table.rows.count == 25 && table.columns.count == 7)
    func row(_ strategy: LayerStrategy, _ ratio: String) throws -> [String] {
      try #require(table.rows.first { $0[0] == strategy.rawValue && $0[1] == ratio })
    }
    // A tenth of three layers is none.
    let unmapped = try row(.front, "0.1")
    #expect(isClose(Double(unmapped[4]) ?? .nan, 0) && unmapped[5] == "1" && unmapped[6] == "")
    #expect(isClose(Double(try row(.back, "0.5")[6]) ?? .nan, 11.99 / 8.47))
    for strategy in LayerStrategy.allCases {
      let result = try alone(PaperRecipe(layers: .share(strategy, ratio: 0.5)), text)
      #expect(agrees(try row(strategy, "0.5"), from: 2, result), "\(strategy)")
    }
  }

  @Test func measuresAreCompared() throws {
    var analysis = MeasureAnalysis()
    analysis.windows = windows
    let text = tiny.text(100)
    let table = try #require(try written(try run(analysis, [text]), figures: ["metrics"])["metrics"])
    #expect(table.rows.map(\.[0]) == SimilarityMeasure.allCases.map(\.rawValue))
    #expect(table.rows[0][5] == "2.577" && table.rows[1][7] == "5.376")
    for (row, measure) in zip(table.rows, SimilarityMeasure.allCases) {
      var recipe = PaperRecipe(layers: .back(ratio: 0.5))
      recipe.similarity = measure
      #expect(agrees(row, from: 1, try alone(recipe, text)), "\(measure)")
    }
    #expect(Set(table.rows.map(\.[1])).count > 2)
  }

  // MARK: Mistakes

  @Test func shortTextsAreRefused() throws {
    let short = [tiny.text(19)]
    for analysis: any Analysis in [SimilarityAnalysis(), ConsistencyAnalysis()] {
      #expect(throws: AnalysisError.tooShort(needed: 20, found: 19)) { try run(analysis, short) }
    }
    #expect(throws: AnalysisError.tooShort(needed: 160, found: 19)) { try run(UsageAnalysis(), short) }
    #expect(throws: AnalysisError.tooShort(needed: 512, found: 19)) { try run(MeasureAnalysis(), short) }
    var analysis = MeasureAnalysis()
    analysis.windows.context = 20
    #expect(throws: RecipeError.self) { try run(analysis, [tiny.text(100)]) }
    var long = ConsistencyAnalysis()
    long.tokens = 1000
    #expect(throws: DecoderError.contextExceeded(needed: 1020, limit: 256)) { try run(long, [tiny.text(100)]) }
  }

  @Test func wrongOptionsAreNamed() {
    var similarity = SimilarityAnalysis()
    similarity.windows = 0
    var usage = UsageAnalysis()
    usage.windows = -1
    var layers = LayerAnalysis()
    layers.unit = .blocks(0)
    var strategies = StrategyAnalysis()
    strategies.ratios = [0.5, 1.5]
    var measures = MeasureAnalysis()
    measures.ratio = -1
    var window = MeasureAnalysis()
    window.windows.maxWindows = 0
    var tokens = ConsistencyAnalysis()
    tokens.tokens = 0
    var every = ConsistencyAnalysis()
    every.every = 501
    let all: [(any Analysis, String)] = [
      (similarity, "windows"), (usage, "windows"), (layers, "blocks"), (strategies, "ratio"), (measures, "ratio"),
      (window, "max-windows"), (tokens, "tokens"), (every, "every"),
    ]
    for (analysis, name) in all { #expect(analysis.problem?.hasPrefix(name) == true, "\(name)") }
    for analysis: any Analysis in [
      SimilarityAnalysis(), UsageAnalysis(), LayerAnalysis(), StrategyAnalysis(), MeasureAnalysis(),
      ConsistencyAnalysis(),
    ] {
      #expect(analysis.problem == nil)
    }
  }

  @Test func unwritableFoldersThrow() throws {
    let report = try run(SimilarityAnalysis(), [tiny.expected.tokens])
    #expect(throws: (any Error).self) { try report.write(to: "/no/such/folder") }
  }
}
