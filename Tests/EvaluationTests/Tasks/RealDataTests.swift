// The public data sets beside the project, where they are: every item is read.

import Foundation
import KindredEvaluation
import KindredModelFiles
import Testing

@Suite(.enabled(if: hasSharedData, "no evaluation data at ../shared/data"))
struct RealDataTests {
  @Test func allQuestionsAreRead() throws {
    let task = try MMLUTask(data: sharedData + "/mmlu")
    #expect(task.items.count == 570 && task.data.badItems.isEmpty)
    #expect(Set(task.items.map(\.id)).count == 570)
    #expect(Set(task.items.flatMap(\.groups)).filter { $0.hasPrefix("subject/") }.count == 57)
    let sizes = Dictionary(grouping: task.items, by: { $0.groups[0] }).mapValues { $0.count / 10 }
    #expect(
      sizes == ["category/STEM": 19, "category/humanities": 13, "category/social sciences": 12, "category/other": 13])
    #expect(
      task.items.allSatisfy { $0.prompt.hasSuffix("\nAnswer:") && $0.prompt.split(separator: "\nAnswer: ").count == 6 })
  }

  @Test func allDocumentsAreRead() throws {
    let questions = try HotpotQATask(data: sharedData + "/hotpotqa/hotpot_train_100.json")
    #expect(questions.items.count == 100)
    #expect(questions.items.allSatisfy { $0.prompt.contains("\nPassage 2:\n") })
    for item in questions.items {
      #expect(try questions.scores(of: .text(item.references[0]), to: item) == ["f1": 1, "exact_match": 1])
    }
    let reports = try GovReportTask(data: sharedData + "/longbench/gov_report.jsonl")
    #expect(reports.items.count == 12)
    for item in reports.items {
      let scores = try reports.scores(of: .text(item.references[0]), to: item)
      #expect(scores.values.allSatisfy { $0 > 0.999 })
    }
    let needles = try RulerTask(data: sharedData + "/ruler")
    #expect(needles.items.count == 60 && needles.items.allSatisfy { $0.groups == ["file/niah_multikey_3_4096"] })
    let reviews = try SST2Task(data: sharedData + "/sst2/dev.tsv")
    #expect(reviews.items.count == 872 && Set(reviews.items.flatMap(\.references)).count == 2)
    #expect(try SST2Task(data: sharedData + "/sst2/train.tsv").items.count == 6000)
    for (split, count) in ["train": 5749, "dev": 1500, "test": 1379] {
      #expect(try STSBTask(data: "\(sharedData)/stsb/sts-\(split).tsv").items.count == count)
    }
    let task = try NeedleTask(data: sharedData + "/needle/PaulGrahamEssays") { $0.utf8.count / 4 }
    #expect(task.items.count == 15 && task.data.files.count == 49)
  }

  /// Each published solution passes its tests, and none passes without.
  @Test func publishedSolutionsPass() throws {
    let path = sharedData + "/humaneval/HumanEval.jsonl.gz"
    let task = try HumanEvalTask(data: path, sandbox: PythonSandbox())
    #expect(task.items.count == 164)
    let unpacked = Process()
    unpacked.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    unpacked.arguments = ["gzip", "-dc", path]
    let output = Pipe()
    unpacked.standardOutput = output
    try unpacked.run()
    let lines = output.fileHandleForReading.readDataToEndOfFile().split(separator: UInt8(ascii: "\n"))
    unpacked.waitUntilExit()
    try #require(lines.count == 164)
    struct Published: Decodable { let canonicalSolution: String }
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    var emptyPasses = 0
    for (item, line) in zip(task.items, lines) {
      let solution = try decoder.decode(Published.self, from: line).canonicalSolution
      #expect(try task.scores(of: .text(solution), to: item) == ["pass@1": 1], "\(item.id)")
      emptyPasses += try task.scores(of: .text("    pass\n"), to: item) == ["pass@1": 1] ? 1 : 0
    }
    #expect(emptyPasses == 0)
  }
}
