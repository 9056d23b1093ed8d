// The tasks of `kindred evaluate` but perplexity: where their data come from, and what they measure.

import ArgumentParser
import Foundation
import Kindred
import KindredEvaluation

extension ReadTask {
  /// A task with its account of the data, which is also given for people.
  init(_ task: some DataTask) {
    for item in task.data.badItems { standardError("kindred: left out: \(item)\n") }
    self.init(task: task, skippedItems: task.data.badItems.count, files: task.data.files)
  }
}

struct MMLUCommand: TaskCommand {
  static let configuration = CommandConfiguration(
    commandName: "mmlu",
    abstract: "Questions with four answers in 57 subjects.",
    discussion: """
      --data is the published folder, with dev/SUBJECT_dev.csv and test/SUBJECT_test.csv. The answer is the letter with \
      the greatest log-likelihood after "Answer:"; prompts are those of lm-evaluation-harness. Groups are the subjects \
      and the four categories; the score of all weighs each question alike. Of instruction-tuned models, too, the plain \
      text is continued.
      """)

  @OptionGroup var evaluation: TaskOptions

  @Option(parsing: .unconditional, help: "Answered questions of the same subject before each; 0 for none.")
  var shots = 5

  func validate() throws {
    if !(0...100).contains(shots) { throw ValidationError("--shots: expected 0 to 100, found \(shots)") }
  }

  func makeTask(tokenizer: Tokenizer) throws -> ReadTask {
    ReadTask(try MMLUTask(data: evaluation.data, shots: shots, skipsBadItems: evaluation.skipBadItems))
  }
}

struct HotpotQACommand: TaskCommand {
  static let configuration = CommandConfiguration(
    commandName: "hotpotqa",
    abstract: "Questions over several paragraphs of Wikipedia.",
    discussion: """
      --data is the published JSON of the distractor setting (its ten paragraphs become the passages) or LongBench's \
      hotpotqa.jsonl. Prompt and 32 new tokens are LongBench's; scores are token F1 and exact match.
      """)

  @OptionGroup var evaluation: TaskOptions

  func makeTask(tokenizer: Tokenizer) throws -> ReadTask {
    ReadTask(try HotpotQATask(data: evaluation.data, skipsBadItems: evaluation.skipBadItems))
  }
}

struct GovReportCommand: TaskCommand {
  static let configuration = CommandConfiguration(
    commandName: "govreport",
    abstract: "One-page summaries of government reports.",
    discussion: """
      --data is LongBench's gov_report.jsonl. Prompt and 512 new tokens are LongBench's, and so are the scores: the F of \
      ROUGE-1, -2 and -L as PyPI rouge 1.0.1 counts them. Other implementations give other numbers.
      """)

  @OptionGroup var evaluation: TaskOptions

  func makeTask(tokenizer: Tokenizer) throws -> ReadTask {
    ReadTask(try GovReportTask(data: evaluation.data, skipsBadItems: evaluation.skipBadItems))
  }
}

struct NeedleCommand: TaskCommand {
  static let configuration = CommandConfiguration(
    commandName: "needle",
    abstract: "One sentence hidden in a long text, at every depth of every length.",
    discussion: """
      --data is a folder of .txt essays, or one text. A seven-digit number, drawn by --seed, is hidden between two \
      sentences and asked for; the score is 1 where the answer contains it. Groups are lengths, depths and their cells: \
      a heat map.
      """)

  @OptionGroup var evaluation: TaskOptions

  @Option(parsing: .unconditional, help: ArgumentHelp("Tokens of the prompts, at most.", valueName: "list"))
  var lengths = "1024,2048,4096"

  @Option(parsing: .unconditional, help: ArgumentHelp("Percent of the text before the needle.", valueName: "list"))
  var depths = "0,25,50,75,100"

  @Option(parsing: .unconditional, help: "Needles of each depth and length.")
  var repeats = 1

  func validate() throws {
    if let problem = try grid.problem { throw ValidationError("--\(problem)") }
  }

  private var grid: NeedleTask.Grid {
    get throws {
      var grid = NeedleTask.Grid()
      grid.lengths = try numbers(lengths, "lengths")
      grid.depths = try numbers(depths, "depths")
      grid.repeats = repeats
      grid.seed = evaluation.methods.seed
      return grid
    }
  }

  private func numbers(_ list: String, _ option: String) throws -> [Int] {
    try list.split(separator: ",", omittingEmptySubsequences: false).map { text in
      guard let number = Int(text) else {
        throw ValidationError("--\(option): expected numbers with commas between, found \"\(text)\"")
      }
      return number
    }
  }

  func makeTask(tokenizer: Tokenizer) throws -> ReadTask {
    ReadTask(
      try NeedleTask(data: evaluation.data, grid: grid, skipsBadItems: evaluation.skipBadItems) { text in
        tokenizer.encode(text, addsBOS: false).count
      })
  }
}

struct RulerCommand: TaskCommand {
  static let configuration = CommandConfiguration(
    commandName: "ruler",
    abstract: "RULER's retrieval from long texts, such as niah_multikey.",
    discussion: """
      --data is a JSONL file as RULER's prepare.py writes it, or a folder of such, which are then groups. 128 tokens are \
      generated; the score is the share of the outputs that they contain, whatever their case.
      """)

  @OptionGroup var evaluation: TaskOptions

  func makeTask(tokenizer: Tokenizer) throws -> ReadTask {
    ReadTask(try RulerTask(data: evaluation.data, skipsBadItems: evaluation.skipBadItems))
  }
}

struct HumanEvalCommand: TaskCommand {
  static let configuration = CommandConfiguration(
    commandName: "humaneval",
    abstract: "Python functions that must pass their tests.",
    discussion: """
      --data is the published HumanEval.jsonl, gzipped or not. The functions are completed greedily and RUN with their \
      tests (pass@1), each in a python3 of its own: one process without network that can read files but write none, for \
      3 s of processor time and 10 s in all, in 1 GiB. Without --allow-execution nothing is done, and nothing either \
      where this system cannot keep programs from the network (Linux with seccomp can).
      """)

  @OptionGroup var evaluation: TaskOptions

  @Flag(help: "Run what the model writes.")
  var allowExecution = false

  @Flag(help: "Run it even where it cannot be kept from the network, from files and from other processes.")
  var allowUnisolated = false

  @Option(parsing: .unconditional, help: "Tokens of a completion.")
  var maxTokens = 512

  func validate() throws {
    guard allowExecution else {
      throw ValidationError("expected --allow-execution: this task runs programs that the model writes")
    }
    if maxTokens < 1 { throw ValidationError("--max-tokens: expected at least 1, found \(maxTokens)") }
  }

  func makeTask(tokenizer: Tokenizer) throws -> ReadTask {
    ReadTask(
      try HumanEvalTask(
        data: evaluation.data, sandbox: PythonSandbox(allowsUnisolated: allowUnisolated), maxTokens: maxTokens,
        skipsBadItems: evaluation.skipBadItems))
  }
}

struct SST2Command: TaskCommand {
  static let configuration = CommandConfiguration(
    commandName: "sst2",
    abstract: "Whether sentences of film reviews are positive.",
    discussion: """
      --data is GLUE's dev.tsv. The answer is the likelier of " negative" and " positive" after the sentence and \
      "Question: Is this sentence positive or negative?\\nAnswer:", as in lm-evaluation-harness. Prefill alone.
      """)

  @OptionGroup var evaluation: TaskOptions

  func makeTask(tokenizer: Tokenizer) throws -> ReadTask {
    ReadTask(try SST2Task(data: evaluation.data, skipsBadItems: evaluation.skipBadItems))
  }
}

struct STSBCommand: TaskCommand {
  static let configuration = CommandConfiguration(
    commandName: "stsb",
    abstract: "How similar two sentences are, against what people say.",
    discussion: """
      --data is sts-test.tsv or the like. A pair's similarity is the cosine of the final hidden states of their last \
      tokens; the score is Spearman's rank correlation with people's ratings. Prefill alone.
      """)

  @OptionGroup var evaluation: TaskOptions

  func makeTask(tokenizer: Tokenizer) throws -> ReadTask {
    ReadTask(try STSBTask(data: evaluation.data, skipsBadItems: evaluation.skipBadItems))
  }
}
