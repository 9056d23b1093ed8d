// Data files: what is read, what is refused, and how that is said.

import Foundation
import KindredEvaluation
import Testing

@Suite struct TaskDataTests {
  /// An MMLU folder of one subject whose test file holds `text`.
  func mmlu(_ text: String, skips: Bool = false) throws -> MMLUTask {
    let folder = try DataFolder(["test/anatomy_test.csv": text])
    return try MMLUTask(data: folder.path, shots: 0, skipsBadItems: skips)
  }

  /// The question of each record, as the prompt shows it.
  func questions(_ task: MMLUTask) -> [String] {
    task.items.map { String($0.prompt.split(separator: ".\n\n", maxSplits: 1)[1]) }
  }

  // MARK: CSV

  @Test func quotedFieldsAreRead() throws {
    let task = try mmlu("\"a, \"\"b\"\"\r\nc\",1,\"2,\n3\",\"\",4,A\r\nd \"e\",5,6,7,8,B")
    #expect(
      questions(task) == [
        "a, \"b\"\r\nc\nA. 1\nB. 2,\n3\nC. \nD. 4\nAnswer:", "d \"e\"\nA. 5\nB. 6\nC. 7\nD. 8\nAnswer:",
      ])
    #expect(task.items.map(\.id) == ["anatomy_test:1", "anatomy_test:4"])
    #expect(task.items.map(\.references) == [["A"], ["B"]])
  }

  @Test func emptyLinesAndAByteOrderMarkAreNothing() throws {
    let task = try mmlu("\u{FEFF}\n\nq,1,2,3,4,D\n\r\n")
    #expect(task.items.map(\.id) == ["anatomy_test:3"])
  }

  /// Each damaged record costs no other, and is named by its first line.
  @Test func damagedRecordsAreReported() throws {
    let text = """
      fine,1,2,3,4,A
      five,1,2,3,B
      letter,1,2,3,4,E
      "after"x,1,2,3,4,A
      "two
      lines",1,2,3,4,C
      "open,1,2,3,4,C
      last,1,2,3,4,D
      """
    let folder = try DataFolder(["test/anatomy_test.csv": text])
    let task = try MMLUTask(data: folder.path, shots: 0, skipsBadItems: true)
    #expect(task.items.map(\.id) == ["anatomy_test:1", "anatomy_test:5", "anatomy_test:8"])
    let file = folder("test/anatomy_test.csv")
    #expect(
      task.data.badItems.map(\.description) == [
        "\(file): line 2: expected 6 fields (question, four answers, letter), found 5",
        "\(file): line 3: expected A, B, C or D as the last field, found \"E\"",
        "\(file): line 4: expected a comma after the closing quotation mark of field \"after\"",
        "\(file): line 7: expected a closing quotation mark, found the end of the file",
      ])
    let refusal = try #require(problem { try MMLUTask(data: folder.path, shots: 0) })
    #expect(refusal.hasPrefix("4 items of the data cannot be read (--skip-bad-items leaves such out): \(file): line 2"))
  }

  /// A quotation mark that is never closed does not take the rest of a large file with it.
  @Test func anOpenQuotationEnds() throws {
    let fine = String(repeating: "fine,1,2,3,4,A\n", count: 100_000)
    let task = try mmlu("\"open,1,2,3,4,A\n" + fine, skips: true)
    #expect(task.items.count == 100_000)
    #expect(task.data.badItems.map(\.place) == ["line 1"])
    #expect(task.data.badItems[0].reason.contains("at most 1048576 bytes"))
  }

  @Test func invalidUTF8IsReported() throws {
    let folder = try DataFolder()
    try folder.write("test/anatomy_test.csv", Data("q,1,2,3,4,A\nq\u{FF},1,2,3,4,A\n".utf16.map { UInt8($0 & 0xFF) }))
    #expect(problem { try MMLUTask(data: folder.path, shots: 0) }?.contains("line 2: expected UTF-8") == true)
  }

  @Test func anotherFormatIsNotReadToItsEnd() throws {
    let found = problem { try mmlu(String(repeating: "x\n", count: 1002), skips: true) }
    #expect(found?.contains("more than 1000 items cannot be read, the first at") == true)
  }

  // MARK: JSON

  @Test func damagedLinesOfJSONAreReported() throws {
    let good = #"{"input": "question", "context": "text", "answers": ["yes"]}"#
    let lines = [
      good, #"{"input": "question", "answers": ["yes"]}"#, #"{"input": 3"#,
      #"{"input": "question", "context": "text", "answers": []}"#,
      #"{"input": "question", "context": "text", "answers": [5]}"#, "", "[]", good,
    ]
    let folder = try DataFolder(["gov.jsonl": lines.joined(separator: "\n")])
    let task = try GovReportTask(data: folder("gov.jsonl"), skipsBadItems: true)
    #expect(task.items.map(\.id) == ["gov:1", "gov:8"])
    #expect(
      task.data.badItems.map { "\($0.place): \($0.reason)" } == [
        "line 2: context: expected a string, found nothing",
        "line 3: JSON: at byte 11: expected a comma or a closing brace, found the end of the text",
        "line 4: answers: expected at least one, found none", "line 5: answers[0]: expected a string, found 5",
        "line 7: input: expected a string, found nothing",
      ])
  }

  @Test func damagedItemsOfAListAreReported() throws {
    let good = #"{"question": "q", "answer": "a", "context": [["Title", ["One.", " Two."]]]}"#
    let bad = #"{"question": "q", "answer": "a", "context": [["Title"]]}"#
    let folder = try DataFolder(["hotpot.json": "[\(good), \(bad)]", "cut.json": "[\(good),\n\(good)", "x.json": "[7]"])
    let task = try HotpotQATask(data: folder("hotpot.json"), skipsBadItems: true)
    #expect(task.items.count == 1)
    #expect(
      task.data.badItems.map { "\($0.place): \($0.reason)" } == [
        "item 2: context[0]: expected a title and a list of sentences, found an array of 1"
      ])
    #expect(problem { try HotpotQATask(data: folder("cut.json")) }?.contains("cut.json: line 2: JSON") == true)
    #expect(problem { try HotpotQATask(data: folder("x.json")) }?.contains("item 1: context") == true)
    #expect(problem { try HotpotQATask(data: folder("x.json"), skipsBadItems: true) }?.contains("at least one") == true)
  }

  // MARK: TSV

  @Test func damagedLinesOfTablesAreReported() throws {
    let folder = try DataFolder([
      "sst2.tsv": "text\tlabel\nfine \t1\nno label\nlabel\t2\nlabel\tx\n", "header.tsv": "sentence\tlabel\n",
      "stsb.tsv": """
      g\tf\t2012\t1\t5.000\tOne.\tTwo.\tsource
      g\tf\t2012\t1\t5.1\tOne.\tTwo.
      g\tf\t2012\t1\t5\tOne.\t\u{20}
      g
      """,
      "glue.tsv": "index\tsentence1\tsentence2\tscore\n0\tOne.\tTwo.\t2.5\n",
    ])
    let reviews = try SST2Task(data: folder("sst2.tsv"), skipsBadItems: true)
    #expect(reviews.items.map(\.references) == [["positive"]])
    #expect(reviews.data.badItems.map(\.place) == ["line 3", "line 4", "line 5"])
    let pairs = try STSBTask(data: folder("stsb.tsv"), skipsBadItems: true)
    #expect(pairs.items.map(\.request) == [.compare("One.", "Two.")])
    #expect(
      pairs.data.badItems.map { "\($0.place): \($0.reason)" } == [
        "line 2: expected a rating from 0 to 5, found \"5.1\"", "line 3: expected two sentences, found an empty one",
        "line 4: expected at least 7 fields, found 1",
      ])
    #expect(try STSBTask(data: folder("glue.tsv")).items.map(\.references) == [["2.5"]])
    #expect(problem { try SST2Task(data: folder("header.tsv")) }?.contains("at least one item, found none") == true)
  }

  // MARK: Files

  @Test func whatIsNoDataIsRefused() throws {
    let folder = try DataFolder(["empty.jsonl": "", "blank.jsonl": "\n \n\t\n", "notes.md": "x", "ruler/notes.md": "x"])
    for empty in ["empty.jsonl", "blank.jsonl"] {
      let found = problem { try GovReportTask(data: folder(empty)) }
      #expect(found?.contains("expected at least one item, found none") == true)
    }
    #expect(problem { try GovReportTask(data: folder("none")) }?.contains("No such file") == true)
    #expect(problem { try GovReportTask(data: folder.path) }?.contains("expected a file, found a folder") == true)
    #expect(problem { try RulerTask(data: folder("ruler")) }?.contains("files named *.jsonl, found none") == true)
    #expect(problem { try MMLUTask(data: folder.path) }?.contains("test: No such file") == true)
    #expect(problem { try SST2Task(data: "/dev/zero") }?.contains("found a device, pipe or socket") == true)
  }

  @Test func gzippedFilesAreRead() throws {
    // `{"input": "a", "outputs": ["b"]}` and a line feed, by gzip.
    let packed = try #require(
      Data(base64Encoded: "H4sIAAAAAAACA6tWyswrKC1RslJQSlTSUVDKLy0BcouB/GilJKXYWi4A8K74HCEAAAA="))
    let folder = try DataFolder()
    let path = try folder.write("ruler.jsonl", packed)
    let task = try RulerTask(data: path)
    #expect(task.items.map(\.prompt) == ["a"])
    for damaged in [packed.dropLast(9), packed.prefix(20) + [7] + packed.dropFirst(21)] {
      let path = try folder.write("damaged.gz", Data(damaged))
      #expect(problem { try RulerTask(data: path) }?.contains("damaged or cut off") == true)
    }
  }
}
