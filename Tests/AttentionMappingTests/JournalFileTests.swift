// Journals on disk: what is cut off is found again, what is damaged is named, and no other file is touched.

import Foundation
import KindredAttentionMapping
import Testing

@Suite struct JournalFileTests {
  private enum Line: Codable, Equatable {
    case header(String)
    case finding(Int)
  }

  let path = FileManager.default.temporaryDirectory.appendingPathComponent("kindred-journal-\(UUID().uuidString)").path

  private func open(_ header: String = "run", replaces: (Line) -> Bool = { _ in false }) throws -> JournalFile<Line> {
    try JournalFile(path: path, header: .header(header), replaces: replaces)
  }

  private func content() throws -> Data { try Data(contentsOf: URL(fileURLWithPath: path)) }
  private func write(_ data: Data) throws { try data.write(to: URL(fileURLWithPath: path)) }

  /// A journal of three findings.
  private func findings() throws -> Data {
    defer { try? FileManager.default.removeItem(atPath: path) }
    let journal = try open()
    for number in 1...3 { try journal.append(.finding(number)) }
    return try content()
  }

  @Test func whereverItWasCutOffTheRestIsRead() throws {
    let whole = try findings()
    let ends = whole.indices.filter { whole[$0] == 10 }
    for count in 0...whole.count {
      try write(whole.prefix(count))
      let journal = try open()
      let lines = ends.count { $0 < count }
      #expect(journal.isNew == (lines == 0))
      #expect(journal.found == (0..<max(0, lines - 1)).map { .finding($0 + 1) })
      try journal.append(.finding(9))
      #expect(try JournalFileTests.lines(content()) == max(1, lines) + 1)
    }
    try FileManager.default.removeItem(atPath: path)
  }

  private static func lines(_ data: Data) -> Int { data.count { $0 == 10 } }

  @Test func damagedLinesAreNamedAndNothingIsLost() throws {
    let whole = try findings()
    let ends = whole.indices.filter { whole[$0] == 10 }
    var damaged = whole
    // A digit of the second finding.
    let digit = try #require(damaged[ends[1]..<ends[2]].lastIndex { (48...57).contains($0) })
    damaged[digit] = damaged[digit] == 57 ? 48 : damaged[digit] + 1
    try write(damaged)
    let error = #expect(throws: JournalError.self) { _ = try open() }
    #expect(error?.description.contains("line 3: expected a finding, found damaged data") == true)
    #expect(try content() == damaged)
    try FileManager.default.removeItem(atPath: path)
  }

  @Test(arguments: ["notes", "notes\nmore notes\n", "{}", "{\"hash\":\"0\",\"line\":{\"header\":{\"_0\":\"run\"}}}\n"])
  func otherFilesAreRefusedAndKept(text: String) throws {
    try write(Data(text.utf8))
    #expect(throws: JournalError.self) { _ = try open { _ in true } }
    #expect(try content() == Data(text.utf8))
    try FileManager.default.removeItem(atPath: path)
  }

  @Test func journalsOfOtherInputsAreReplacedWhereThatIsAskedFor() throws {
    let whole = try findings()
    try write(whole)
    #expect(throws: JournalError.self) { _ = try open("other") }
    #expect(try content() == whole)
    let journal = try open("other") { $0 == .header("run") }
    #expect(journal.isNew && journal.found.isEmpty)
    #expect(try Self.lines(content()) == 1)
    try FileManager.default.removeItem(atPath: path)
  }
}
