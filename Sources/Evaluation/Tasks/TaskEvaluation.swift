// Evaluates a task by several methods: one after the other answers the same items in the same units, answers go to the
// journal as they are found, and what is found there is not asked again.

import Foundation
import KindredAttentionMapping
import KindredCompute
import KindredGeneration
import KindredTokenization
import KindredTransformer

/// How a task is run.
public struct TaskRunOptions<B: Backend>: Sendable {
  /// Sequences that are read or continued together, at most. From 16 on, products take less precise inputs
  /// (`Batch` of the transformer).
  public var batch = 10
  /// Tokens that a prompt and its answer may have; the models' by default.
  public var context: Int?
  /// Bytes of keys and values, of both models, that are held at a time.
  public var kvByteLimit = Int(clamping: ProcessInfo.processInfo.physicalMemory / 2)
  /// Decides the draws of the intervals.
  public var seed: UInt64 = 0
  /// How the models run.
  public var session = Session<B>.Options()

  public init() {}

  /// Says what is wrong with the options, if anything is.
  public var problem: String? {
    if !(1...256).contains(batch) { return "batch: expected 1 to 256 sequences, found \(batch)" }
    if let context, context < 2 { return "context: expected at least 2 tokens, found \(context)" }
    return nil
  }
}

/// How far an evaluation is.
public struct EvaluationProgress: Sendable, Hashable {
  /// The name of the method that is being asked.
  public var method: String
  /// Items that the method has answered.
  public var done: Int
  /// Items of the task.
  public var items: Int
  /// Work that is done, of all methods, 0 to 1.
  public var share: Double
}

/// A task's items, ready to be asked by several methods.
public struct TaskEvaluation<B: Backend> {
  /// The number of items that are asked.
  public var itemCount: Int { items.count }

  private let items: [TaskItem]
  private let task: any EvaluationTask
  private let methods: [RunnableMethod<B>]
  private let units: [TaskUnit]
  private let tokenizer: Tokenizer
  private let options: TaskRunOptions<B>
  private let unmappedName = EvaluationMethod.unmapped.name
  /// Bytes of one position in the unmapped model.
  private let largeBytes: Int

  /// Tokenizes the items and makes methods ready.
  ///
  /// - Parameters:
  ///   - task: the task.
  ///   - limit: asks only so many items, at equal distances.
  ///   - methods: by which it is answered, in the order of results.
  ///   - models: what they run on.
  ///   - options: how.
  /// - Throws: `TaskError` for a task without items, or with one that cannot be asked; what
  ///   ``MethodModels/runnable(_:length:)`` throws.
  public init(
    _ task: any EvaluationTask, limit: Int? = nil, methods: [EvaluationMethod], models: MethodModels<B>,
    options: TaskRunOptions<B>
  ) throws {
    self.task = task
    self.options = options
    let count = min(limit ?? .max, task.items.count)
    items = (0..<count).map { task.items[$0 * task.items.count / count] }
    guard !items.isEmpty else { throw TaskError(description: "\(task.name): expected at least one item, found none") }
    if let twice = Dictionary(grouping: items, by: \.id).first(where: { $1.count > 1 }) {
      throw TaskError(description: "\(task.name): expected items with different ids, found two of \(twice.key)")
    }
    guard let tokenizer = models.large.tokenizer else { throw PromptError.noTokenizer(model: models.large.name) }
    self.tokenizer = tokenizer
    let configurations = [models.large, models.small].compactMap { $0?.decoder.configuration }
    let limits = configurations.map(\.contextLength) + [options.context].compactMap(\.self)
    let tokenized = try ItemTokenizer(tokenizer: tokenizer, context: limits.min() ?? 0).items(items)
    let bytes = [options.session.kvType, options.session.smallKVType ?? options.session.kvType]
    let positionBytes = zip(configurations, bytes).map { $0.kvBytesPerPosition(type: $1) }
    largeBytes = positionBytes[0]
    let longest = tokenized.map { $0.length * $0.sequences.count }.max() ?? 0
    let needed = longest * positionBytes.reduce(0, +)
    guard needed <= options.kvByteLimit else {
      throw TaskError(
        description: "\(task.name): expected at most \(options.kvByteLimit) bytes of keys and values, found an "
          + "item that needs \(needed); a smaller --context shortens it")
    }
    units = TaskUnit.units(
      of: tokenized, sequences: options.batch, bytesPerPosition: positionBytes.reduce(0, +),
      byteLimit: options.kvByteLimit)
    let lengths = tokenized.map(\.length).sorted()
    self.methods = try methods.map { try models.runnable($0, length: lengths[lengths.count / 2]) }
  }

  /// Asks every method for what the journal does not have.
  ///
  /// - Parameters:
  ///   - journalPath: where answers are kept; nowhere, where `nil`.
  ///   - inputs: what tells this run apart from those on other files or of another version; items, options and methods
  ///     are added here.
  ///   - progress: called after each unit; what it throws ends the run.
  /// - Throws: what went wrong with the journal, a pass, or the scoring of an answer.
  public func run(
    journalPath: String? = nil, inputs: String = "", progress: (EvaluationProgress) throws -> Void = { _ in }
  ) throws -> [MethodResult] {
    let journal = try ResponseJournal<TaskResponse>(path: journalPath, task: task.name, inputs: hash(of: inputs))
    for (number, method) in methods.enumerated() {
      let runner = UnitRunner(method: method, tokenizer: tokenizer, options: options.session)
      var done = 0
      for unit in units {
        try run(unit, runner: runner, method: method, journal: journal)
        done += unit.items.count
        let share = (Double(number) + Double(done) / Double(items.count)) / Double(methods.count)
        try progress(EvaluationProgress(method: method.name, done: done, items: items.count, share: share))
      }
    }
    return try results(journal)
  }

  /// Answers a unit, as a whole: an item's answer must not depend on which others were answered before an interruption.
  private func run(
    _ unit: TaskUnit, runner: UnitRunner<B>, method: RunnableMethod<B>, journal: ResponseJournal<TaskResponse>
  ) throws {
    let isAnswered = unit.items.allSatisfy { journal.answer(of: method.identity, to: items[$0.index].id) != nil }
    guard !isAnswered else { return }
    let start = ContinuousClock.now
    let outcomes = try runner.run(unit, of: items)
    let seconds = (ContinuousClock.now - start).seconds / Double(unit.items.count)
    // Also where the small model answers, the large one is what it is compared with.
    let ownBytes = method.decoder.configuration.kvBytesPerPosition(type: options.session.kvType)
    for (item, outcome) in zip(unit.items, outcomes) {
      guard outcome.response.isFinite else {
        throw TaskError(items[item.index], "expected numbers as an answer of \(method.name), found none")
      }
      try journal.note(
        JournaledAnswer(
          method: method.identity, item: items[item.index].id, answer: outcome.response, seconds: seconds,
          kvBytes: outcome.kv.total, unmappedKVBytes: outcome.kv.unmapped / ownBytes * largeBytes))
    }
  }

  private func hash(of inputs: String) -> String {
    var hash = InputHash()
    hash.add(inputs)
    hash.add(task.name)
    for item in items { hash.add("\(item)") }
    for unit in units {
      hash.add("\(unit.group) \(unit.headerLength) \(unit.items.count)")
      for tokens in unit.items.flatMap(\.sequences) { hash.add(tokens) }
    }
    let session = options.session
    hash.add("\(session.kvType) \(String(describing: session.smallKVType)) \(session.chunkRows)")
    return hash.text
  }
}

// MARK: Results

extension TaskEvaluation {
  private func results(_ journal: ResponseJournal<TaskResponse>) throws -> [MethodResult] {
    let answers = try methods.map { method in
      try items.map { item in
        guard let answer = journal.answer(of: method.identity, to: item.id) else {
          throw TaskError(item, "expected an answer by \(method.name), found none")
        }
        return answer
      }
    }
    let scores = try answers.map { try zip($0, items).map { try task.scores(of: $0.answer, to: $1) } }
    let unmapped = methods.firstIndex { $0.name == unmappedName }
    let truncated = units.reduce(0) { $0 + $1.items.count(where: \.isTruncated) }
    return try methods.indices.map { index in
      let found = try Bootstrap(seed: options.seed).evaluate(
        scores[index], unmapped: index == unmapped ? nil : unmapped.map { scores[$0] }, groups: items.map(\.groups),
        summary: task.summary)
      let longest = answers[index].max { $0.unmappedKVBytes < $1.unmappedKVBytes }
      var notes = methods[index].notes
      if truncated > 0 { notes.append("\(truncated) of \(items.count) prompts without their middle") }
      return MethodResult(
        method: methods[index].name, scores: found.scores, differences: found.differences, groups: found.groups,
        kvBytes: longest?.kvBytes ?? 0, unmappedKVBytes: longest?.unmappedKVBytes ?? 0,
        seconds: answers[index].reduce(0) { $0 + $1.seconds }, notes: notes.isEmpty ? nil : notes)
    }
  }
}

extension TaskResponse {
  fileprivate var isFinite: Bool {
    switch self {
    case .logLikelihoods(let values): values.allSatisfy(\.isFinite)
    case .similarity(let value): value.isFinite
    case .text: true
    }
  }
}

extension DecoderConfiguration {
  /// Bytes of the keys and values of one position.
  fileprivate func kvBytesPerPosition(type: KVType) -> Int {
    layerCount * attention.kvHeads * 2
      * KVPageLayout.byteCount(headDimension: attention.headDimension, type: type, positions: 1)
  }
}
