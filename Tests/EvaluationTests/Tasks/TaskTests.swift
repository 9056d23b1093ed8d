// Prompts and scores of the tasks, on small data.

import Foundation
import KindredEvaluation
import Testing

@Suite struct TaskTests {
  // MARK: MMLU

  /// The prompt as lm-evaluation-harness makes it, with two examples.
  @Test func questionsFollowTheirExamples() throws {
    let folder = try DataFolder([
      "dev/high_school_physics_dev.csv": "d1,1,2,3,4,B\nd2,5,6,7,8,C\nd3,5,6,7,8,C\n",
      "test/high_school_physics_test.csv": "\" t1 \",v,w,x,y,D\n",
      "dev/alchemy_dev.csv": "d1,1,2,3,4,B\nd2,5,6,7,8,C\n",
      "test/alchemy_test.csv": "t2,v,w,x,y,A\nt3,v,w,x,y,A\n",
    ])
    let task = try MMLUTask(data: folder.path, shots: 2)
    #expect(task.items.map(\.id) == ["alchemy_test:1", "alchemy_test:2", "high_school_physics_test:1"])
    #expect(
      task.items[2].request
        == .choose(
          prompt: """
            The following are multiple choice questions (with answers) about high school physics.

            d1
            A. 1
            B. 2
            C. 3
            D. 4
            Answer: B

            d2
            A. 5
            B. 6
            C. 7
            D. 8
            Answer: C

            t1
            A. v
            B. w
            C. x
            D. y
            Answer:
            """, continuations: [" A", " B", " C", " D"]))
    #expect(task.items[2].groups == ["category/STEM", "subject/high_school_physics"])
    #expect(task.items[0].groups == ["subject/alchemy"])
    #expect(Set(task.data.files.map { URL(fileURLWithPath: $0).lastPathComponent }).count == 4)
    #expect(
      try MMLUTask(data: folder.path, shots: 0).items[2].prompt.hasSuffix(
        "physics.\n\nt1\nA. v\nB. w\nC. x\nD. y\nAnswer:"))
    #expect(problem { try MMLUTask(data: folder.path) }?.contains("expected 5 questions to show, found 2") == true)
  }

  @Test func theLikeliestLetterCounts() throws {
    let folder = try DataFolder(["test/a_test.csv": "q,1,2,3,4,C\n"])
    let task = try MMLUTask(data: folder.path, shots: 0)
    #expect(try task.scores(of: .logLikelihoods([-3, -2, -1, -4]), to: task.items[0]) == ["accuracy": 1])
    #expect(try task.scores(of: .logLikelihoods([-1, -2, -1, -4]), to: task.items[0]) == ["accuracy": 0])
    for wrong in [TaskResponse.logLikelihoods([1]), .text("C"), .similarity(1)] {
      #expect(problem { try task.scores(of: wrong, to: task.items[0]) }?.contains("expected 4 log-likelihoods") == true)
    }
  }

  // MARK: Answers and summaries

  @Test func publishedParagraphsBecomePassages() throws {
    let folder = try DataFolder([
      "hotpot.json": """
      [{"_id": "x", "type": "bridge", "level": "hard", "question": "Who?", "answer": "The Cat",
        "context": [["One", ["First.", " Second."]], ["Two", ["Third."]]], "supporting_facts": [["One", 0]]}]
      """,
      "longbench.jsonl": #"{"input": "Who?", "context": "Passage 1:\nOne", "answers": ["cat", "dog"], "_id": "y"}"#,
    ])
    let task = try HotpotQATask(data: folder("hotpot.json"))
    let instruction =
      "Answer the question based on the given passages. Only give me the answer and do not output any other words."
    let prompt =
      "\(instruction)\n\nThe following are given passages.\nPassage 1:\nOne\nFirst. Second.\nPassage 2:\nTwo\nThird."
      + "\n\n\(instruction)\n\nQuestion: Who?\nAnswer:"
    #expect(task.items[0].request == .generate(prompt: prompt, maxTokens: 32, stop: []))
    #expect(task.items[0].groups == ["type/bridge", "level/hard"])
    #expect(try task.scores(of: .text(" cat!"), to: task.items[0]) == ["f1": 1, "exact_match": 1])

    let other = try HotpotQATask(data: folder("longbench.jsonl"))
    #expect(other.items[0].prompt.contains("passages.\nPassage 1:\nOne\n\nAnswer the question"))
    let scores = try other.scores(of: .text("a dog barks"), to: other.items[0])
    #expect(scores["exact_match"] == 0)
    #expect(abs((scores["f1"] ?? 0) - 2.0 / 3) < 1e-12)
    #expect(try other.scores(of: .text(""), to: other.items[0]) == ["f1": 0, "exact_match": 0])
  }

  @Test func reportsAreSummarised() throws {
    let folder = try DataFolder(["g.jsonl": #"{"input": "", "context": "Report.", "answers": ["one two. three"]}"#])
    let task = try GovReportTask(data: folder("g.jsonl"))
    let prompt = """
      You are given a report by a government agency. Write a one-page summary of the report.

      Report:
      Report.

      Now, write a one-page summary of the report.

      Summary:
      """
    #expect(task.items[0].request == .generate(prompt: prompt, maxTokens: 512, stop: []))
    let scores = try task.scores(of: .text("one two. three"), to: task.items[0])
    #expect(scores.count == 3 && scores.values.allSatisfy { abs($0 - 1) < 1e-7 })
    #expect(try task.scores(of: .text(""), to: task.items[0]) == ["rouge1": 0, "rouge2": 0, "rougeL": 0])
  }

  // MARK: Retrieval

  @Test func outputsAreRecalledWhateverTheirCase() throws {
    let lines = #"{"input": "Find: ", "answer_prefix": "It is", "outputs": ["AB-1", "cd-2"], "index": 0}"#
    let folder = try DataFolder(["4096.jsonl": lines, "8192.jsonl": lines])
    let task = try RulerTask(data: folder.path)
    #expect(task.items.map(\.groups) == [["file/4096"], ["file/8192"]])
    #expect(task.items[0].request == .generate(prompt: "Find: It is", maxTokens: 128, stop: []))
    #expect(try task.scores(of: .text(" ab-1, then CD-2."), to: task.items[0]) == ["recall": 1])
    #expect(try task.scores(of: .text("AB-1"), to: task.items[0]) == ["recall": 0.5])
    #expect(try RulerTask(data: folder("4096.jsonl")).items[0].groups == [])
  }

  /// A tokenizer of words, for needles.
  func words(_ text: String) -> Int { text.split(whereSeparator: \.isWhitespace).count }

  @Test func needlesAreWhereTheyShouldBe() throws {
    func essay(_ name: String) -> String {
      (0..<40).map { "Sentence \($0) of \(name) has a few words." }.joined(separator: " \n")
    }
    let folder = try DataFolder(["one.txt": essay("one"), "two.txt": essay("two"), "readme.md": "no essay"])
    var grid = NeedleTask.Grid()
    grid.lengths = [128, 400]
    grid.depths = [0, 50, 100]
    grid.repeats = 2
    let task = try NeedleTask(data: folder.path, grid: grid, countTokens: words)
    #expect(task.items.count == 12 && Set(task.items.map(\.id)).count == 12)
    for item in task.items {
      let place = item.id.split(separator: ":").compactMap { Int($0) }
      #expect(item.groups == ["length/\(place[0])", "depth/\(place[1])", "length/\(place[0]),depth/\(place[1])"])
      #expect((place[0] - 9...place[0]).contains(words(item.prompt)), "\(item.id): \(words(item.prompt))")
      let lines = item.prompt.split(separator: "\n")
      let text = lines.dropFirst().dropLast().joined(separator: " ")
      let needle = try #require(
        text.range(of: #"One of the special magic numbers for [a-z]+ is: \d{7}\."#, options: .regularExpression))
      #expect(text[needle].hasSuffix("\(item.references[0])."))
      let before = Double(words(String(text[..<needle.lowerBound])))
      let after = Double(words(String(text[needle.upperBound...])))
      #expect(abs(before / (before + after) * 100 - Double(place[1])) < 900 / Double(place[0] - 70), "\(item.id)")
      #expect(try task.scores(of: .text(" \(item.references[0]), I think"), to: item) == ["found": 1])
      #expect(try task.scores(of: .text("1234"), to: item) == ["found": 0])
    }
    #expect(Set(task.items.flatMap(\.references)).count == 12)
    // The same place has the same needle in another grid; another seed has another.
    grid.lengths = [400]
    #expect(try NeedleTask(data: folder.path, grid: grid, countTokens: words).items[0] == task.items[3])
    grid.seed = 1
    #expect(
      try NeedleTask(data: folder.path, grid: grid, countTokens: words).items[0].references != task.items[3].references)
    grid.lengths = [4000]
    #expect(
      problem { try NeedleTask(data: folder.path, grid: grid, countTokens: words) }?.contains("expected text of")
        == true)
  }

  @Test func gridsAreChecked() {
    var grid = NeedleTask.Grid()
    #expect(grid.problem == nil)
    grid.depths = [0, 101]
    #expect(grid.problem == "depths: expected 0 to 100, found 101")
    grid.depths = [50, 50]
    #expect(grid.problem == "depths: expected each once, found one twice")
    grid.lengths = []
    #expect(grid.problem == "lengths: expected at least one, found none")
    grid = NeedleTask.Grid()
    grid.repeats = 0
    #expect(grid.problem == "repeats: expected 1 to 1000, found 0")
  }

  // MARK: Prefill only

  @Test func reviewsAreChosenByLabel() throws {
    let folder = try DataFolder(["dev.tsv": "sentence\tlabel\nit 's fine . \t1\n"])
    let task = try SST2Task(data: folder("dev.tsv"))
    let prompt = "it 's fine . \nQuestion: Is this sentence positive or negative?\nAnswer:"
    #expect(task.items[0].request == .choose(prompt: prompt, continuations: [" negative", " positive"]))
    #expect(try task.scores(of: .logLikelihoods([-2, -1]), to: task.items[0]) == ["accuracy": 1])
    #expect(try task.scores(of: .logLikelihoods([-1, -2]), to: task.items[0]) == ["accuracy": 0])
  }

  @Test func pairsAreRanked() throws {
    let rows = [("0.5", 0.1), ("2.0", 0.3), ("2.0", 0.2), ("4.0", 0.9)]
    let lines = rows.map { "g\tf\t2012\t1\t\($0.0)\tOne \($0.1).\tTwo.\n" }.joined()
    let folder = try DataFolder(["sts.tsv": lines])
    let task = try STSBTask(data: folder("sts.tsv"))
    let scores = try zip(task.items, rows).map { try task.scores(of: .similarity($1.1), to: $0) }
    #expect(scores[3] == ["similarity": 0.9, "rated": 4])
    let summary = task.summary(of: scores)
    #expect(summary.keys.sorted() == ["spearman"])
    #expect(abs((summary["spearman"] ?? 0) - 0.9486832980505138) < 1e-12)
    #expect(task.summary(of: [scores[0], scores[0]])["spearman"]?.isNaN == true)
  }
}
