// A report before it is written as HTML or Markdown: sections of plain text, tables and charts. Texts are plain; what
// writes them escapes them.

/// A report.
struct ReportDocument {
  var title: String
  var introduction: [String]
  var sections: [ReportSection]
}

/// A titled part of a report.
struct ReportSection {
  /// The anchor: letters, digits and hyphens.
  var id: String
  var title: String
  var blocks: [ReportBlock]
}

/// What a section is made of.
indirect enum ReportBlock {
  case heading(String)
  case paragraph(String)
  case list([String])
  case table(ReportTable)
  case chart(Chart)
  /// Terms and what they mean.
  case terms([(term: String, meaning: String)])
  /// What only some want to see.
  case details(summary: String, [ReportBlock])
}

/// A table of a report.
struct ReportTable {
  var caption: String
  var columns: [String]
  /// `[rows][columns]`.
  var rows: [[String]]
  /// Columns of words; the others hold figures.
  var textColumns: Set<Int> = [0]

  init(_ caption: String, columns: [String], rows: [[String]], textColumns: Set<Int> = [0]) {
    precondition(rows.allSatisfy { $0.count == columns.count }, "\(caption): rows of different lengths")
    self.caption = caption
    self.columns = columns
    self.rows = rows
    self.textColumns = textColumns
  }
}
