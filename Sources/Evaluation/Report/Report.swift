// `kindred report`: one page and one Markdown file from a folder of results.

import Foundation

/// A report on the results in a folder.
public struct Report {
  private let document: ReportDocument
  /// Files of the folder that are not in the report, and why.
  public let problems: [(file: String, reason: String)]
  /// Results that are in it.
  public let resultCount: Int

  /// - Parameter path: a folder of results of `kindred evaluate`, `analyze` and `bench --scenario`.
  /// - Throws: ``ReportError`` where the folder cannot be read or has no result.
  public init(folder path: String) throws(ReportError) {
    let folder = try ResultFolder(path: path)
    problems = folder.problems
    resultCount = folder.evaluations.count + folder.scenarios.count + folder.analyses.count
    document = Self.document(folder)
  }

  /// The page: no scripts, nothing loaded from elsewhere.
  public var html: String { HTMLWriter.page(document) }

  /// The same as Markdown, without figures.
  ///
  /// - Parameter page: the name of the page, which has them.
  public func markdown(page: String) -> String { MarkdownWriter.file(document, page: page) }

  private static func document(_ folder: ResultFolder) -> ReportDocument {
    var sections = [
      ReportSection(id: "paper", title: "The paper's claims", blocks: ClaimSection(folder: folder).blocks),
      ReportSection(
        id: "recipe", title: "The paper's recipe on every task (Fig. 5)",
        blocks: RecipeSection(results: folder.evaluations.map(\.result)).blocks),
      ReportSection(id: "efficiency", title: "Memory and time (Table 3)", blocks: efficiency(folder)),
    ]
    for (number, found) in folder.evaluations.enumerated() {
      let section = EvaluationSection(found.result)
      sections.append(
        ReportSection(
          id: "task-\(number)", title: "\(section.title) by method",
          blocks: section.blocks + [.paragraph("From \(found.file).")]))
    }
    let order = AnalysisSection.order
    func place(_ name: String) -> Int { order.firstIndex(of: name) ?? order.count }
    for (number, run) in folder.analyses.sorted(by: { place($0.name) < place($1.name) }).enumerated() {
      let section = AnalysisSection(run: run)
      sections.append(ReportSection(id: "analysis-\(number)", title: section.title, blocks: section.blocks))
    }
    sections.append(
      ReportSection(id: "words", title: "Words and what they mean here", blocks: [.terms(Glossary.terms)]))
    sections.append(ReportSection(id: "origin", title: "Where the results come from", blocks: origin(folder)))
    return ReportDocument(
      title: "Borrowed attention: what it costs and what it saves", introduction: Glossary.introduction,
      sections: sections.filter { !$0.blocks.isEmpty })
  }

  private static func efficiency(_ folder: ResultFolder) -> [ReportBlock] {
    guard !folder.scenarios.isEmpty else { return [] }
    let intro = ReportBlock.paragraph(
      "Several sequences are read and then continued together, by the large model alone and by the pair. A gain above 1 "
        + "means that the pair is faster, or holds less. The time to first token is that until every sequence has one: "
        + "only so does the paper's throughput follow from its times. With its 8 groups of query heads Qwen2-72B keeps "
        + "\(NumberText.bytes(PaperNumbers.groupedBytes)) a token in 16 bits, with keys and values of its own for each "
        + "query head \(NumberText.bytes(PaperNumbers.expandedBytes)): the paper's bytes come near the latter."
    )
    return folder.scenarios.reduce(into: [intro]) { blocks, found in
      let (run, result) = (found.result, found.result.result)
      let model = run.conditions.filter { ["model", "small_model"].contains($0.name) }.map(\.value)
      blocks.append(.heading("\(result.scenario.name): \(model.joined(separator: " + "))"))
      blocks.append(.list(result.conditions))
      blocks.append(
        .table(
          ReportTable(
            "\(result.scenario.name): medians, with the smallest and largest",
            columns: ScenarioResult.comparisonColumns, rows: result.comparison)))
      let conditions = run.conditions.map { "\($0.name.replacing("_", with: " ")) \($0.value)" }
      blocks.append(.paragraph("From \(found.file): \(conditions.joined(separator: ", "))."))
    }
  }

  // MARK: Origin

  private static func origin(_ folder: ResultFolder) -> [ReportBlock] {
    var blocks: [ReportBlock] = folder.machines.map { found in
      .table(
        ReportTable(
          "Machine, from \(found.file)", columns: ["", "value"], rows: found.result.map { [$0.name, $0.value] },
          textColumns: [0, 1]))
    }
    var provenances = folder.evaluations.map {
      (title: EvaluationSection($0.result).title, file: $0.file, provenance: $0.result.provenance)
    }
    for found in folder.scenarios {
      if let provenance = found.result.provenance {
        provenances.append((found.result.result.scenario.name, found.file, provenance))
      }
    }
    for (title, file, provenance) in provenances {
      var rows = [
        ["date", provenance.date], ["Kindred", provenance.kindredVersion],
        ["command", provenance.commandLine.joined(separator: " ")], ["seed", "\(provenance.seed)"],
      ]
      rows += provenance.machine.sorted { $0.key < $1.key }.map { [$0.key, $0.value] }
      rows += provenance.files.sorted { $0.key < $1.key }.map { ["SHA-256 of \($0.key)", $0.value] }
      blocks.append(
        .details(
          summary: "\(title), from \(file)",
          [.table(ReportTable("How it was made", columns: ["", "value"], rows: rows, textColumns: [0, 1]))]))
    }
    if !folder.problems.isEmpty {
      blocks.append(
        .table(
          ReportTable(
            "Files that are not in this report", columns: ["file", "reason"],
            rows: folder.problems.map { [$0.file, $0.reason] }, textColumns: [0, 1])))
    }
    return blocks
  }
}
