// A report as one HTML page: no scripts, nothing loaded from elsewhere, light or dark as the reader's system is.

/// Writes a report as HTML.
struct HTMLWriter {
  private var text = ""

  /// The page.
  static func page(_ document: ReportDocument) -> String {
    var writer = HTMLWriter()
    writer.write(document)
    return writer.text
  }

  /// A text with everything escaped that HTML, its attributes or SVG would take for their own; controls become U+FFFD.
  static func escaped(_ text: String) -> String {
    var escaped = ""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "&": escaped += "&amp;"
      case "<": escaped += "&lt;"
      case ">": escaped += "&gt;"
      case "\"": escaped += "&quot;"
      case "'": escaped += "&#39;"
      default:
        // Directional marks could show a text in another order than it has.
        let isHarmful = scalar.properties.generalCategory == .control && scalar != "\n" && scalar != "\t"
        let isFormat = scalar.properties.generalCategory == .format
        escaped.unicodeScalars.append(isHarmful || isFormat ? "\u{FFFD}" : scalar)
      }
    }
    return escaped
  }

  private mutating func write(_ document: ReportDocument) {
    let title = Self.escaped(document.title)
    text = """
      <!DOCTYPE html>
      <html lang="en">
      <head>
      <meta charset="utf-8"/>
      <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'"/>
      <meta name="viewport" content="width=device-width, initial-scale=1"/>
      <title>\(title)</title>
      <style>
      \(Self.style)
      </style>
      </head>
      <body>
      <main>
      <h1>\(title)</h1>

      """
    for paragraph in document.introduction { element("p", paragraph) }
    text += "<nav><ul>\n"
    for section in document.sections {
      text += "<li><a href=\"#\(Self.escaped(section.id))\">\(Self.escaped(section.title))</a></li>\n"
    }
    text += "</ul></nav>\n"
    for section in document.sections {
      text += "<section id=\"\(Self.escaped(section.id))\">\n"
      element("h2", section.title)
      for block in section.blocks { write(block) }
      text += "</section>\n"
    }
    text += "</main>\n</body>\n</html>\n"
  }

  private mutating func element(_ name: String, _ content: String) {
    text += "<\(name)>\(Self.escaped(content))</\(name)>\n"
  }

  private mutating func write(_ block: ReportBlock) {
    switch block {
    case .heading(let heading): element("h3", heading)
    case .paragraph(let paragraph): element("p", paragraph)
    case .list(let items) where items.isEmpty: break
    case .list(let items):
      text += "<ul>\n"
      for item in items { element("li", item) }
      text += "</ul>\n"
    case .table(let table): write(table)
    case .chart(let chart):
      text += "<figure>\n\(chart.svg)<figcaption>\(Self.escaped(chart.caption))</figcaption>\n</figure>\n"
    case .terms(let terms):
      text += "<dl>\n"
      for (term, meaning) in terms {
        element("dt", term)
        element("dd", meaning)
      }
      text += "</dl>\n"
    case .details(let summary, let blocks):
      text += "<details>\n"
      element("summary", summary)
      for block in blocks { write(block) }
      text += "</details>\n"
    }
  }

  private mutating func write(_ table: ReportTable) {
    text += "<div class=\"scroll\"><table>\n"
    element("caption", table.caption)
    text += "<thead>\n"
    row(table.columns, cell: "th scope=\"col\"", table)
    text += "</thead>\n<tbody>\n"
    for cells in table.rows { row(cells, cell: "td", table) }
    text += "</tbody>\n</table></div>\n"
  }

  private mutating func row(_ cells: [String], cell: String, _ table: ReportTable) {
    let name = cell.prefix(2)
    text += "<tr>"
    for (column, content) in cells.enumerated() {
      let kind = table.textColumns.contains(column) ? " class=\"words\"" : ""
      text += "<\(cell)\(kind)>\(Self.escaped(content))</\(name)>"
    }
    text += "</tr>\n"
  }

  /// The colours of series are those of Okabe and Ito, which colour-blind people can tell apart; markers differ, too.
  private static let style = """
    :root { color-scheme: light dark; --page: #ffffff; --ink: #1b1f24; --soft: #5b6570; --rule: #d5dae0;
      --panel: #f5f7f9; --link: #0b5cad; --heat: #08519c; --s0: #0072b2; --s1: #d55e00; --s2: #009e73; --s3: #b6588f;
      --s4: #8a6d00; --s5: #3b8fc2; --s6: #555555; }
    @media (prefers-color-scheme: dark) {
      :root { --page: #14181d; --ink: #e6e9ed; --soft: #9aa5b1; --rule: #343c46; --panel: #1c222a; --link: #6db3f2;
        --heat: #7db8f0; --s0: #56b4e9; --s1: #f28c3c; --s2: #2fc49b; --s3: #e39cc6; --s4: #e6c34a; --s5: #9ad0f5;
        --s6: #bbbbbb; }
    }
    body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
    main { max-width: 58rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
    h1 { font-size: 1.7rem; line-height: 1.25; } h2 { margin-top: 2.6rem; border-bottom: 1px solid var(--rule); }
    h3 { margin-top: 2rem; } a { color: var(--link); } nav ul { columns: 2; padding-left: 1.1rem; }
    .scroll { overflow-x: auto; margin: 1rem 0; } table { border-collapse: collapse; font-size: .88rem; }
    caption { text-align: left; color: var(--soft); padding-bottom: .3rem; }
    th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--rule); text-align: right; vertical-align: top;
      font-variant-numeric: tabular-nums; white-space: nowrap; }
    th { border-bottom: 2px solid var(--soft); } .words { text-align: left; white-space: normal; }
    th { white-space: normal; }
    figure { margin: 1.4rem 0; padding: .8rem; background: var(--panel); border-radius: 8px; }
    figcaption { color: var(--soft); font-size: .88rem; } figure svg { display: block; width: 100%; height: auto; }
    dt { font-weight: 600; } dd { margin: 0 0 .6rem 1.2rem; } details { margin: 1rem 0; } summary { cursor: pointer; }
    svg text { fill: currentColor; font: 12px system-ui, sans-serif; } svg .soft { fill: var(--soft); }
    svg .grid { stroke: var(--rule); stroke-width: 1; } svg .heat { fill: var(--heat); }
    svg .onheat { fill: var(--page); }
    svg .axis { stroke: var(--soft); stroke-width: 1; fill: none; }
    svg .line { fill: none; stroke-width: 2; } svg .whisker { stroke-width: 1.5; }
    \((0..<Chart.seriesColors).map { "svg .s\($0) { stroke: var(--s\($0)); } svg .m\($0) { fill: var(--s\($0)); }" }
      .joined(separator: "\n"))
    """
}
