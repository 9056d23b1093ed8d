// What a task is: questions, how an answer to one is scored, and how scores become a result. Data, prompts and scoring
// stand here; which model answers, and how, is the runner's.

/// One question of a task.
public struct TaskItem: Sendable, Hashable {
  /// Unique within the task, and the same in every run over the same data.
  public var id: String
  /// The groups that results are also given for: MMLU's subject and category, a needle's length and depth.
  public var groups: [String]
  /// What is asked of the model.
  public var request: Request
  /// What is right, as the task's data say it.
  public var references: [String]

  public init(id: String, groups: [String] = [], request: Request, references: [String]) {
    self.id = id
    self.groups = groups
    self.request = request
    self.references = references
  }

  /// What is asked of a model. Items that follow each other and whose prompts begin alike share the prefill of that.
  public enum Request: Sendable, Hashable {
    /// The log-likelihood of each continuation of the prompt.
    case choose(prompt: String, continuations: [String])
    /// Text after the prompt, by the most likely token each time, until one of `stop` appears.
    case generate(prompt: String, maxTokens: Int, stop: [String])
    /// The cosine of the last tokens' final hidden states of two texts.
    case compare(String, String)
  }
}

/// What a model answers to an item's request.
public enum TaskResponse: Sendable, Hashable, Codable {
  /// Of each continuation, in nats.
  case logLikelihoods([Double])
  /// The text without what stopped it.
  case text(String)
  /// From -1 to 1.
  case similarity(Double)
}

/// Questions, their scoring, and what scores amount to.
public protocol EvaluationTask: Sendable {
  /// As on the command line: `mmlu`.
  var name: String { get }
  var items: [TaskItem] { get }

  /// The scores of one answer, by metric: `["accuracy": 1]`.
  func scores(of response: TaskResponse, to item: TaskItem) throws -> [String: Double]

  /// What the scores of several items amount to, by metric; the mean of each, unless the task says otherwise. Called
  /// once for each bootstrap sample, too.
  func summary(of scores: [[String: Double]]) -> [String: Double]
}

extension EvaluationTask {
  /// The mean of each metric over the items that have it.
  public func summary(of scores: [[String: Double]]) -> [String: Double] { meanScores(scores) }
}

/// The mean of each metric over the items that have it, for tasks that summarise some metrics otherwise.
public func meanScores(_ scores: [[String: Double]]) -> [String: Double] {
  var sums: [String: (sum: Double, count: Int)] = [:]
  for (metric, value) in scores.joined() {
    sums[metric, default: (0, 0)].sum += value
    sums[metric, default: (0, 0)].count += 1
  }
  return sums.mapValues { $0.sum / Double($0.count) }
}
