// What an evaluation found, as it is stored and reported.

/// A number with its 95% bootstrap interval.
public struct Estimate: Sendable, Hashable, Encodable {
  /// Over all items.
  public var value: Double
  /// The interval's lower end: percentile 2.5 of the draws.
  public var low: Double
  /// Its upper end: percentile 97.5.
  public var high: Double

  public init(value: Double, low: Double, high: Double) {
    self.value = value
    self.low = low
    self.high = high
  }
}

/// What one method reached on a task. Keys of dictionaries are metrics.
public struct MethodResult: Sendable, Hashable, Encodable {
  /// As on the command line: `unmapped`, `small`, `paper:0.5`, `plan:keys-50.json`.
  public var method: String
  /// By metric.
  public var scores: [String: Estimate]
  /// Scores less those of the unmapped model on the same items; empty for the unmapped model itself, and where it did
  /// not run.
  public var differences: [String: Estimate]
  /// By group.
  public var groups: [String: [String: Estimate]]
  /// KV bytes held for the longest item at its end, of both models.
  public var kvBytes: Int
  /// What the unmapped model would hold.
  public var unmappedKVBytes: Int
  /// Seconds of computing, those of an interrupted run included.
  public var seconds: Double
  /// What a reader should know, for people: prompts that lost their middle, the window that was chosen.
  public var notes: [String]?

  private enum CodingKeys: String, CodingKey {
    case method, scores, differences, groups, seconds, notes
    case kvBytes = "kv_bytes"
    case unmappedKVBytes = "unmapped_kv_bytes"
  }
}

/// A task's results, and all that is needed to repeat them. Encoded in snake case, like all JSON of the command line.
public struct EvaluationResult: Sendable, Hashable, Encodable {
  /// As on the command line: `mmlu`.
  public var task: String
  /// Items that were scored.
  public var items: Int
  /// Lines of data that could not be read and were left out.
  public var skippedItems: Int
  /// In the order in which they were named.
  public var methods: [MethodResult]
  /// What the result was made from, and where.
  public var provenance: Provenance

  public init(task: String, items: Int, skippedItems: Int, methods: [MethodResult], provenance: Provenance) {
    self.task = task
    self.items = items
    self.skippedItems = skippedItems
    self.methods = methods
    self.provenance = provenance
  }

  private enum CodingKeys: String, CodingKey {
    case task, items, methods, provenance
    case skippedItems = "skipped_items"
  }
}

/// Where a result comes from.
public struct Provenance: Sendable, Hashable, Encodable {
  /// ISO 8601, when the run ended.
  public var date: String
  /// The version of Kindred.
  public var kindredVersion: String
  /// The tool and its arguments.
  public var commandLine: [String]
  /// Of bootstrap intervals and random maps.
  public var seed: UInt64
  /// SHA-256 of models, data and plans by the name of the file, by its path where two have the same name.
  public var files: [String: String]
  /// Processor, operating system, instruction set, threads.
  public var machine: [String: String]

  public init(
    date: String, kindredVersion: String, commandLine: [String], seed: UInt64, files: [String: String],
    machine: [String: String]
  ) {
    self.date = date
    self.kindredVersion = kindredVersion
    self.commandLine = commandLine
    self.seed = seed
    self.files = files
    self.machine = machine
  }

  private enum CodingKeys: String, CodingKey {
    case date, seed, files, machine
    case kindredVersion = "kindred_version"
    case commandLine = "command_line"
  }
}
