// A report as Markdown; its figures are in the HTML page only.

/// Writes a report as Markdown.
struct MarkdownWriter {
  private var text = ""

  /// The file.
  ///
  /// - Parameter page: the name of the HTML page, where the figures are.
  static func file(_ document: ReportDocument, page: String) -> String {
    var writer = MarkdownWriter()
    writer.text = "# \(escaped(document.title))\n\n"
    for paragraph in document.introduction { writer.paragraph(paragraph) }
    writer.paragraph("The figures are in the page \(page), which any browser opens.")
    for section in document.sections {
      writer.text += "## \(escaped(section.title))\n\n"
      for block in section.blocks { writer.write(block) }
    }
    return writer.text
  }

  /// A text on one line with everything escaped that Markdown or HTML would take for their own.
  static func escaped(_ text: String) -> String {
    var escaped = ""
    for scalar in HTMLWriter.escaped(text).unicodeScalars {
      switch scalar {
      case "\n", "\t": escaped += " "
      case "\\", "`", "*", "_", "[", "]", "|", "#", "~", "!":
        escaped += "\\"
        escaped.unicodeScalars.append(scalar)
      default: escaped.unicodeScalars.append(scalar)
      }
    }
    // Characters that only HTML attributes need escaped.
    return escaped.replacing("&quot;", with: "\"").replacing("&\\#39;", with: "'")
  }

  private mutating func paragraph(_ paragraph: String) { text += "\(Self.escaped(paragraph))\n\n" }

  private mutating func write(_ block: ReportBlock) {
    switch block {
    case .heading(let heading): text += "### \(Self.escaped(heading))\n\n"
    case .paragraph(let paragraph): self.paragraph(paragraph)
    case .list(let items): text += items.map { "- \(Self.escaped($0))\n" }.joined() + "\n"
    case .table(let table): write(table)
    case .chart(let chart): text += "*Figure: \(Self.escaped(chart.caption))*\n\n"
    case .terms(let terms):
      text += terms.map { "- **\(Self.escaped($0.term))**: \(Self.escaped($0.meaning))\n" }.joined() + "\n"
    case .details(let summary, _): text += "*\(Self.escaped(summary)): in the page.*\n\n"
    }
  }

  private mutating func write(_ table: ReportTable) {
    func line(_ cells: [String]) -> String { "| \(cells.joined(separator: " | ")) |\n" }
    text += "\(Self.escaped(table.caption))\n\n"
    text += line(table.columns.map(Self.escaped))
    text += line(table.columns.indices.map { table.textColumns.contains($0) ? ":--" : "--:" })
    for row in table.rows { text += line(row.map(Self.escaped)) }
    text += "\n"
  }
}
