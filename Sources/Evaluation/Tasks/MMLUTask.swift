// MMLU (Hendrycks et al. 2021, arXiv 2009.03300): questions with four answers, in 57 subjects.
//
// Data: the published folder, with `dev/SUBJECT_dev.csv` (examples) and `test/SUBJECT_test.csv`, headerless. Prompts,
// the choice among the letters' log-likelihoods and the categories are those of lm-evaluation-harness; the score of all
// questions weighs every question alike, and so larger subjects more.

import KindredModelFiles

/// The share of questions for which the model finds the right letter most likely.
public struct MMLUTask: DataTask {
  public let name = "mmlu"
  public let data: TaskData

  /// Letters of the answers.
  static let letters = ["A", "B", "C", "D"]

  /// Reads the folder `data`.
  ///
  /// - Parameters:
  ///   - shots: answered questions that precede each, the first of `dev`; there `dev` must have as many.
  ///   - skipsBadItems: leaves out records that cannot be read.
  /// - Throws: `DataError`.
  public init(data path: String, shots: Int = 5, skipsBadItems: Bool = false) throws {
    precondition(shots >= 0, "\(shots) shots")
    var collector = ItemCollector<TaskItem>()
    var examples = ItemCollector<Question>()
    let suffix = "_test.csv"
    for test in try DataPath.files(in: "\(path)/test", endingIn: suffix) {
      let file = try DataFile(path: test)
      let subject = String(file.stem.dropLast("_test".count))
      var header = "The following are multiple choice questions (with answers) about "
      header += subject.replacing("_", with: " ") + ".\n\n"
      if shots > 0 {
        let first = examples.items.count
        let dev = "\(path)/dev/\(subject)_dev.csv"
        try examples.addRecords(of: DataFile(path: dev)) { try Question($1) }
        let found = examples.items[first...]
        guard found.count >= shots else {
          if !skipsBadItems, !examples.bad.isEmpty { throw DataError.badItems(examples.bad) }
          throw DataError.unreadable(path: dev, problem: "expected \(shots) questions to show, found \(found.count)")
        }
        header += found.prefix(shots).map { "\($0.prompt) \($0.answer)\n\n" }.joined()
      }
      let category = Self.categories.first { $0.subjects.contains(subject) }
      let groups = (category.map { ["category/\($0.name)"] } ?? []) + ["subject/\(subject)"]
      try collector.addRecords(of: file) { line, fields in
        let question = try Question(fields)
        return TaskItem(
          id: TaskItem.id(file, line), groups: groups,
          request: .choose(prompt: header + question.prompt, continuations: Self.letters.map { " \($0)" }),
          references: [question.answer])
      }
    }
    collector.merge(examples)
    self.data = try collector.data(path, skipsBadItems: skipsBadItems)
  }

  public func scores(of response: TaskResponse, to item: TaskItem) throws -> [String: Double] {
    let best = try response.likeliest(of: Self.letters.count)
    return ["accuracy": item.references == [Self.letters[best]] ? 1 : 0]
  }

  /// A question and its answer.
  private struct Question {
    let prompt: String
    let answer: String

    /// - Parameter fields: question, four answers, letter.
    init(_ fields: [String]) throws(ItemProblem) {
      guard fields.count == 6 else {
        throw ItemProblem("expected 6 fields (question, four answers, letter), found \(fields.count)")
      }
      guard MMLUTask.letters.contains(fields[5]) else {
        throw ItemProblem("expected A, B, C or D as the last field, found \(fields[5].quoted(limit: 20))")
      }
      let answers = zip(MMLUTask.letters, fields[1...4]).map { "\($0). \($1)\n" }.joined()
      prompt = "\(fields[0].trimmed)\n\(answers)Answer:"
      answer = fields[5]
    }
  }

  /// The published subjects by category.
  private static let categories: [(name: String, subjects: Set<String>)] = [
    (
      "STEM",
      [
        "abstract_algebra", "anatomy", "astronomy", "college_biology", "college_chemistry",
        "college_computer_science", "college_mathematics", "college_physics", "computer_security",
        "conceptual_physics", "electrical_engineering", "elementary_mathematics", "high_school_biology",
        "high_school_chemistry", "high_school_computer_science", "high_school_mathematics", "high_school_physics",
        "high_school_statistics", "machine_learning",
      ]
    ),
    (
      "humanities",
      [
        "formal_logic", "high_school_european_history", "high_school_us_history", "high_school_world_history",
        "international_law", "jurisprudence", "logical_fallacies", "moral_disputes", "moral_scenarios", "philosophy",
        "prehistory", "professional_law", "world_religions",
      ]
    ),
    (
      "social sciences",
      [
        "econometrics", "high_school_geography", "high_school_government_and_politics",
        "high_school_macroeconomics", "high_school_microeconomics", "high_school_psychology", "human_sexuality",
        "professional_psychology", "public_relations", "security_studies", "sociology", "us_foreign_policy",
      ]
    ),
    (
      "other",
      [
        "business_ethics", "clinical_knowledge", "college_medicine", "global_facts", "human_aging", "management",
        "marketing", "medical_genetics", "miscellaneous", "nutrition", "professional_accounting",
        "professional_medicine", "virology",
      ]
    ),
  ]
}
