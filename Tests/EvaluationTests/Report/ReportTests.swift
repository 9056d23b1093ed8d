// Reports on small results: what is in them, that hostile texts stay texts, and what becomes of broken files.

import Foundation
import KindredEvaluation
import Testing

#if canImport(FoundationXML)
  import FoundationXML
#endif

@Suite struct ReportTests {
  /// The elements of a page, which is well-formed XML, too.
  final class Page: NSObject, XMLParserDelegate {
    private(set) var counts: [String: Int] = [:]
    /// The texts of the rows of tables.
    private(set) var rows: [[String]] = []
    private(set) var headings: [String] = []
    private(set) var items: [String] = []
    private var text = ""
    private(set) var isWellFormed = false

    init(_ html: String) {
      super.init()
      let parser = XMLParser(data: Data(html.utf8))
      parser.delegate = self
      isWellFormed = parser.parse()
    }

    func parser(
      _ parser: XMLParser, didStartElement name: String, namespaceURI: String?, qualifiedName: String?,
      attributes: [String: String]
    ) {
      counts[name, default: 0] += 1
      if name == "tr" { rows.append([]) }
      text = ""
    }

    func parser(_ parser: XMLParser, foundCharacters string: String) { text += string }

    func parser(_ parser: XMLParser, didEndElement name: String, namespaceURI: String?, qualifiedName: String?) {
      if name == "td" || name == "th" { rows[rows.count - 1].append(text) }
      if name == "h2" { headings.append(text) }
      if name == "li" { items.append(text) }
    }

    func row(_ first: String) -> [String]? { rows.first { $0.first == first } }
  }

  @Test func everyKindOfResultIsInThePage() throws {
    let folder = try ResultsFolder(ReportFixtures.all)
    let report = try Report(folder: folder.path)
    #expect(report.problems.isEmpty && report.resultCount == 9)
    let page = Page(report.html)
    #expect(page.isWellFormed)
    #expect(page.headings.first == "The paper's claims")
    for part in ["Table 1", "Fig. 2", "Table 3", "Fig. 3", "Fig. 5", "Figs. 9 and 10", "Fig. 11", "Fig. 12"] {
      #expect(page.headings.contains { $0.contains(part) }, "\(part)")
    }
    // Recipe, perplexity, two needle maps and their curve, layers, consistency, similarity, two strategies, usage.
    #expect(page.counts["svg"] == 11 && page.counts["figure"] == 11)
    #expect(page.rows.contains { $0.first == "paper:0.3" && $0.contains("1.48×") && $0.contains("1.08×") })
    let ttft = try #require(page.row("time to first token of all sequences, s"))
    #expect(ttft[1] == "2.00 (1.98–2.02)" && ttft[2].hasPrefix("2.50") && ttft[3].hasPrefix("0.800×"))
    #expect(ttft[4...] == ["2.67", "2.39", "1.12×"])
    // 80 layers: 20 times the large model's bytes, the small model's once.
    let bytes = try #require(page.row("KV, both models, all 80 layers"))
    #expect(bytes[1...3] == ["80.0 kB", "63.0 kB", "1.27×"] && bytes[4...] == ["159 GB", "124 GB", "1.28×"])
    #expect(page.row("processor")?.last == "Some Processor")
    #expect(page.row("SHA-256 of model.gguf")?.last == "abcdef")
  }

  @Test func markdownHasTheTables() throws {
    let folder = try ResultsFolder(ReportFixtures.all)
    let text = try Report(folder: folder.path).markdown(page: "report.html")
    #expect(text.hasPrefix("# Borrowed attention") && text.contains("## Memory and time (Table 3)"))
    let lines = text.split(separator: "\n")
    #expect(lines.contains { $0.hasPrefix("| time per token, ms | 100 (99.0–101) | 125") })
    // Rows of a table have as many cells as its header.
    for (header, rule) in zip(lines, lines.dropFirst()) where rule.hasPrefix("| :--") {
      #expect(Self.cells(header) == Self.cells(rule))
    }
    #expect(text.contains("*Figure: Perplexity") && !text.contains("<svg"))
  }

  static func cells(_ line: Substring) -> Int { line.replacing("\\|", with: "").count { $0 == "|" } - 1 }

  // MARK: Claims

  func page(_ files: [String: String]) throws -> Page {
    let folder = try ResultsFolder(files)
    return Page(try Report(folder: folder.path).html)
  }

  @Test func claimsFollowFromNumbers() throws {
    let page = try page(ReportFixtures.all)
    /// Paper, here, verdict.
    func claim(_ part: String) throws -> [String] {
      Array(try #require(page.rows.first { $0.count == 4 && $0[0].contains(part) }, "\(part)").dropFirst())
    }
    func reason(_ part: String) -> String? { page.items.first { $0.contains(part) } }
    #expect(try claim("30% of the layers") == ["1.08×", "1.48× (1.47× to 1.49×)", "disagrees"])
    let reasons = try #require(reason("30% of the layers"))
    #expect(reasons.contains("0.850 against 0.954") && reasons.contains("2.00×"))
    #expect(reasons.contains("plan:keys-30.json holds no more KV bytes and has 1.01×"))
    // The plan holds more bytes than the recipe at 50%.
    #expect(reason("50% of the layers")?.contains("plan:") == false)
    #expect(try claim("Time per token").last == "disagrees")
    #expect(reason("Time per token")?.contains("the small model takes 16.0%") == true)
    // (80,000 − 63,000) / 80,000 against 21.7%.
    #expect(try claim("KV bytes saved")[1].hasPrefix("21.") && claim("KV bytes saved")[2] == "agrees")
    #expect(try claim("most alike one") == ["0.954 (7B to 72B)", "0.850", "less than the paper"])
    #expect(try claim("Pearson").last == "disagrees" && claim("No measure").last == "disagrees")
    #expect(try claim("first layers").last == "disagrees")
    #expect(reason("first layers")?.contains("Here it is the last ones, with which the recipe begins.") == true)
    #expect(try claim("prompt's map").last == "disagrees")
  }

  @Test func claimsThatHold() throws {
    let perplexity = ReportFixtures.evaluation(
      "perplexity",
      methods: [
        ReportFixtures.method("unmapped", scores: ReportFixtures.perplexity(10)),
        ReportFixtures.method("paper:0.3", scores: ReportFixtures.perplexity(10.9)),
      ])
    let page = try page([
      "perplexity.json": perplexity, "similarity-best.csv": "large_layer,mean_best_cosine\n0,0.96\n",
      "layers.csv": "layers,kl_to_unmapped\n0,0.9\n1,0.1\n",
      "metrics.csv": "similarity,log_perplexity\ncosine,2.5\npearson,4.9\n",
      "consistency-layers.csv": "large_layer,share_same,cosine_lost\n0,0.9,0.001\n",
    ])
    let verdicts = page.rows.filter { $0.count == 4 && $0[3] != "verdict" }
    #expect(verdicts.count == 6 && verdicts.allSatisfy { $0[3] == "agrees" }, "\(verdicts)")
  }

  /// The interval of a factor is that of the paired difference in log-perplexity, not that of the perplexity.
  @Test func factorsArePaired() throws {
    let scores =
      "{\"perplexity\": \(ReportFixtures.estimate(14.8, spread: 5)), \"nll\": \(ReportFixtures.estimate(0.39))}"
    let perplexity = ReportFixtures.evaluation(
      "perplexity",
      methods: [
        ReportFixtures.method("unmapped", scores: ReportFixtures.perplexity(10)),
        ReportFixtures.method("paper:0.3", scores: scores),
      ])
    let row = try #require(try page(["a.json": perplexity]).rows.first { $0.count == 4 && $0[3] == "disagrees" })
    #expect(row[2] == "1.48× (1.34× to 1.63×)")
  }

  @Test func noClaimWithoutNumbers() throws {
    let folder = try ResultsFolder(["usage.csv": ReportFixtures.usage])
    let report = try Report(folder: folder.path)
    #expect(!report.html.contains("The paper&#39;s claims"))
  }

  // MARK: Hostile and broken files

  @Test func hostileTextsStayTexts() throws {
    let evil = #"</td><script>alert(1)</script><img src=x onerror=alert(1)>\" onload=\"x | `a` [b](c)\nline\u202Eback"#
    let folder = try ResultsFolder([
      "a.json": ReportFixtures.evaluation(
        evil, methods: [ReportFixtures.method(evil, scores: "{\"\(evil)\": \(ReportFixtures.estimate(1))}")]),
      "machine.json": "{\"machine\": {\"\(evil)\": \"\(evil)\"}}",
      "x<script>.csv": "<script>,b|c\n<b>,1\n",
      "\"onload=y.json": "broken <script>",
    ])
    let report = try Report(folder: folder.path)
    let page = Page(report.html)
    #expect(page.isWellFormed && page.counts["script"] == nil && page.counts["img"] == nil && page.counts["b"] == nil)
    #expect(!report.html.contains("\u{202E}"))
    let markdown = report.markdown(page: "report.html")
    #expect(!markdown.contains("<script") && !markdown.contains("<img") && !markdown.contains("[b](c)"))
    for line in markdown.split(separator: "\n") where line.contains("onload=") && line.hasPrefix("|") {
      #expect([2, 6].contains(Self.cells(line)), "\(line)")
    }
  }

  @Test func hugeNumbersAreDrawn() throws {
    let numbers = ["1e308", "-1e308", "1e-320", "0", "5"]
    let rows = numbers.enumerated().map { "\($0),\($1),\($1)\n" }.joined()
    let scores = numbers.enumerated().map { number, value in
      """
      {"method": "plan:\(number)", "scores": {"perplexity": {"value": \(value), "low": -1e308, "high": 1e308}},
       "differences": {}, "groups": {"length/\(value),depth/1": {"perplexity": {"value": \(value), "low": 0, "high": 0}}},
       "kv_bytes": 9007199254740992, "unmapped_kv_bytes": 1, "seconds": \(value)}
      """
    }
    let folder = try ResultsFolder([
      "similarity-layers.csv": "large,small_0,small_1\n" + rows, "usage.csv": "small_layer,small_head,share\n" + rows,
      "layers.csv": "layers,kl_to_unmapped,x\n" + rows,
      "consistency-steps.csv": "generated_tokens,share_same,best_cosine\n" + rows,
      "a.json": ReportFixtures.evaluation("perplexity", methods: scores),
    ])
    let report = try Report(folder: folder.path)
    #expect(report.problems.isEmpty, "\(report.problems)")
    #expect(Page(report.html).isWellFormed && !report.html.contains("nan") && !report.html.contains("\"inf"))
  }

  @Test(arguments: [
    ("{\"task\": \"mmlu\", \"methods\": []}", "methods: expected at least one, found none"),
    ("{\"task\": \"mmlu\", \"methods\": [{}]}", "methods[0].method: expected a string, found nothing"),
    (
      ReportFixtures.perplexity.replacing("\"seconds\": 12.5", with: "\"seconds\": \"x\""),
      "methods[0].seconds: expected a number, found \"x\""
    ),
    (String(ReportFixtures.perplexity.dropLast(40)), "JSON"), ("", "expected 1 to"), ("[]", "found none"),
    ("{\"format\": \"kindred-plan\"}", "format \"kindred-plan\""),
    (ReportFixtures.scenario.replacing("\"layers\": 4", with: "\"layers\": 0"), "scenario.layers: expected an integer"),
    (ReportFixtures.scenario.replacing("\"gain\": {", with: "\"gain\": {\"x\": 1}, \"y\": {"), "gain.ttft.median"),
    (ReportFixtures.similarity.replacing("0.85", with: "null"), "findings[0].value: expected a number"),
  ])
  func brokenFilesAreNamed(text: String, reason: String) throws {
    let folder = try ResultsFolder(["broken.json": text, "usage.csv": ReportFixtures.usage])
    let report = try Report(folder: folder.path)
    #expect(report.resultCount == 1 && report.problems.count == 1 && report.problems[0].file == "broken.json")
    #expect(report.problems[0].reason.contains(reason), "\(report.problems[0].reason)")
    #expect(Page(report.html).row("broken.json") != nil)
  }

  @Test(arguments: [
    ("a,b\n1,2\n3\n", "line 3: expected 2 cells, found 1"), ("a,b\n", "at least one row"),
    ("a,\"b\n1,2\n", "closing quotation mark"), ("\u{0}", "at least one row"),
  ])
  func brokenTablesAreNamed(text: String, reason: String) throws {
    let folder = try ResultsFolder(["layers.csv": text, "usage.csv": ReportFixtures.usage])
    let report = try Report(folder: folder.path)
    #expect(report.problems.map(\.file) == ["layers.csv"])
    #expect(report.problems[0].reason.contains(reason), "\(report.problems[0].reason)")
  }

  @Test func quotedCellsAreRead() throws {
    let page = try page(["a.csv": "x,\"y, \"\"z\"\"\"\r\n\"1\n2\",-3.5\n"])
    #expect(page.row("x") == ["x", "y, \"z\""] && page.row("1\n2") == ["1\n2", "-3.500"])
  }

  @Test func foldersWithoutResults() throws {
    let empty = try ResultsFolder([:])
    #expect(throws: ReportError.self) { try Report(folder: empty.path) }
    #expect(throws: ReportError.self) { try Report(folder: empty.path + "/none") }
    let broken = try ResultsFolder(["a.json": "{", "notes.txt": "{}", ".hidden.json": ReportFixtures.perplexity])
    let error = #expect(throws: ReportError.self) { try Report(folder: broken.path) }
    #expect(error?.description.contains("found none; a.json: ") == true)
  }

  /// Only groups of a length and a depth make a map.
  @Test func groupsThatAreNoGrid() throws {
    let groups = ["length/4096", "depth/50", "subject/high_school_1_2"].map {
      "\"\($0)\": {\"found\": \(ReportFixtures.estimate(1))}"
    }
    let method = ReportFixtures.method(
      "unmapped", scores: "{\"found\": \(ReportFixtures.estimate(1))}", groups: "{\(groups.joined(separator: ", "))}")
    let page = try page(["a.json": ReportFixtures.evaluation("needle", methods: [method])])
    #expect(page.counts["svg"] == 1 && page.row("subject/high_school_1_2") == ["subject/high_school_1_2", "100.0%"])
  }
}
