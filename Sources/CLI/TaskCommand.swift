// What the tasks of `kindred evaluate` have in common: options, the run, and what becomes of its result. A task's
// command says how its data are read, and adds options of its own.

import ArgumentParser
import Foundation
import Kindred
import KindredEvaluation

/// A subcommand of `kindred evaluate`.
///
/// ```swift
/// struct MMLUCommand: TaskCommand {
///   static let configuration = CommandConfiguration(commandName: "mmlu", abstract: "…", discussion: "…")
///   @OptionGroup var evaluation: TaskOptions
///   @Option(help: "…") var shots = 5
///
///   func makeTask(tokenizer: Tokenizer) throws -> ReadTask {
///     let task = try MMLUTask(data: evaluation.data, shots: shots, skipsBadItems: evaluation.skipBadItems)
///     return ReadTask(task: task, skippedItems: task.data.badItems.count, files: task.data.files)
///   }
/// }
/// ```
protocol TaskCommand: ParsableCommand {
  var evaluation: TaskOptions { get }

  /// Reads the task's data, before weights are loaded. What it throws names file, line and reason.
  ///
  /// - Parameter tokenizer: the models', for tasks whose prompts have a length in tokens.
  func makeTask(tokenizer: Tokenizer) throws -> ReadTask
}

/// A task whose data are read.
struct ReadTask {
  var task: any EvaluationTask
  /// Lines of data that could not be read and were left out, with `--skip-bad-items`.
  var skippedItems = 0
  /// The files that were read.
  var files: [String]
}

extension TaskCommand {
  func run() throws { try evaluation.run { try makeTask(tokenizer: $0) } }
}

struct TaskOptions: ParsableArguments {
  @OptionGroup var models: ModelOptions
  @OptionGroup var methods: MethodOptions

  @Option(help: ArgumentHelp("The task's data, in the format in which they are published.", valueName: "path"))
  var data: String

  @Option(parsing: .unconditional, help: ArgumentHelp("Only so many items, at equal distances.", valueName: "items"))
  var limit: Int?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Sequences that are read or continued together, at most.", valueName: "sequences"))
  var batch = 10

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Tokens that a prompt and its answer may have; of longer prompts the middle is left out (default: the model's).",
      valueName: "tokens"))
  var context: Int?

  @Flag(help: "Leave out lines of data that cannot be read, and count them.")
  var skipBadItems = false

  func validate() throws {
    if let limit, limit < 1 { throw ValidationError("--limit: expected at least 1 item, found \(limit)") }
    if let problem = runOptions(Session<CPUBackend>.Options()).problem { throw ValidationError("--\(problem)") }
    try methods.validate(with: models)
    if methods.methods == nil, models.mapLayers != nil {
      throw ValidationError("--map-layers: expected --ratio, or a plan of the layers, for a task")
    }
  }

  private func runOptions(_ session: Session<CPUBackend>.Options) -> TaskRunOptions<CPUBackend> {
    var options = TaskRunOptions<CPUBackend>()
    options.batch = batch
    options.context = context
    options.seed = methods.seed
    options.session = session
    return options
  }

  /// Reads the task's data, loads the models, asks and reports.
  func run(_ makeTask: (Tokenizer) throws -> ReadTask) throws {
    try methods.checkOutput(models, data: data)
    let list = try methods.list(for: models)
    guard let file = try openModel(models.model).file else { throw PromptError.noTokenizer(model: models.model) }
    let read = try makeTask(try Tokenizer(file: file))
    let loaded = try models.load()
    let provenance = try RunProvenance(loaded, models: models, methods: list, data: read.files, seed: methods.seed)
    let evaluation = try TaskEvaluation(
      read.task, limit: limit, methods: list, models: try methods.models(loaded, options: models),
      options: runOptions(loaded.sessionOptions))
    let line = RemainingTime()
    let results = try evaluation.run(journalPath: methods.journalPath, inputs: provenance.inputs.text) { progress in
      line.show(progress.share, "\(progress.method): \(progress.done) of \(progress.items)")
    }
    line.clear()
    try methods.report(
      EvaluationResult(
        task: read.task.name, items: evaluation.itemCount, skippedItems: read.skippedItems, methods: results,
        provenance: provenance.finished()))
  }
}
