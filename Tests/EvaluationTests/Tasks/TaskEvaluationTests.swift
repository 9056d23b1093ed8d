// Tasks by every method: answers are those of a run of each item by itself, whatever is shared and batched; an
// interrupted evaluation ends as one that was not.

import Foundation
import KindredAttentionMapping
import KindredCompute
import KindredEvaluation
import KindredGeneration
import KindredTokenization
import KindredTransformer
import Testing

@Suite struct TaskEvaluationTests {
  let tiny: TinyModels

  init() throws { tiny = try TinyModels() }

  // MARK: The slow twin

  func session(_ method: RunnableMethod<CPUBackend>) throws -> Session<CPUBackend> {
    var options = Session<CPUBackend>.Options()
    options.kvType = .f32
    return try Session(decoder: method.decoder, mapping: method.mapping, options: options)
  }

  /// One item in sessions of its own.
  func alone(_ item: TaskItem, _ method: RunnableMethod<CPUBackend>) throws -> TaskResponse {
    let tokenizer = try #require(tiny.models.large.tokenizer)
    switch item.request {
    case .choose(let prompt, let continuations):
      return .logLikelihoods(
        try continuations.map { continuation in
          let session = try session(method)
          let answer = tokenizer.encode(continuation)
          var sum = Prediction(logits: try session.append(tokenizer.encode(prompt))).logProbability(answer[0])
          for (token, next) in zip(answer, answer.dropFirst()) {
            sum += Prediction(logits: try session.append([token])).logProbability(next)
          }
          return sum
        })
    case .generate(let prompt, let maxTokens, let stop):
      var text = ""
      var options = GenerationOptions(maxTokens: maxTokens, stops: stop)
      options.sampling.temperature = 0
      _ = try TextGeneration(session: try session(method), tokenizer: tokenizer, options: options)
        .run(tokenizer.encode(prompt)) { text += $0 }
      return .text(text)
    case .compare(let first, let second):
      let states = try [first, second].map {
        try session(method).finalStates(after: [.init(sequence: 0, tokens: tokenizer.encode($0))])[0]
      }
      return .similarity(cosine(states[0], states[1]))
    }
  }

  func isClose(_ first: TaskResponse, _ second: TaskResponse) -> Bool {
    switch (first, second) {
    case (.logLikelihoods(let first), .logLikelihoods(let second)):
      first.count == second.count && zip(first, second).allSatisfy { abs($0 - $1) < 1e-3 }
    case (.text(let first), .text(let second)): first == second
    case (.similarity(let first), .similarity(let second)): abs(first - second) < 1e-4
    default: false
    }
  }

  @Test(arguments: [TinyTask.choices, TinyTask.generations, TinyTask.comparisons], [1, 3, 10])
  func answersAreThoseOfEachItemAlone(items: [TaskItem], batch: Int) throws {
    let tokenizer = try #require(tiny.models.large.tokenizer)
    let tokenized = try ItemTokenizer(tokenizer: tokenizer, context: 256).items(items)
    let units = TaskUnit.units(of: tokenized, sequences: batch, bytesPerPosition: 1, byteLimit: .max)
    for method in try tiny.methods() {
      // A prompt that alone does not fill StreamingLLM's window shows nothing.
      let runnable = try tiny.models.runnable(method, length: 40)
      var options = Session<CPUBackend>.Options()
      options.kvType = .f32
      let runner = UnitRunner(method: runnable, tokenizer: tokenizer, options: options)
      let answers = try units.flatMap { try runner.run($0, of: items) }
      for (item, answer) in zip(items, answers) {
        let expected = try alone(item, runnable)
        #expect(isClose(answer.response, expected), "\(method.name) \(item.id): \(answer.response), alone \(expected)")
      }
    }
  }

  /// Methods differ, or the comparison above shows nothing.
  @Test func methodsDiffer() throws {
    let methods = try tiny.methods().map { try tiny.models.runnable($0, length: 40) }
    let item = TinyTask.choices[3]
    let answers = try methods.map { try alone(item, $0) }
    for first in answers.indices {
      for second in answers.indices where first < second {
        #expect(!isClose(answers[first], answers[second]), "\(methods[first].name) \(methods[second].name)")
      }
    }
  }

  // MARK: Units

  func units(_ items: [TaskItem], batch: Int, byteLimit: Int = .max) throws -> [TaskUnit] {
    let tokenizer = try #require(tiny.models.large.tokenizer)
    return TaskUnit.units(
      of: try ItemTokenizer(tokenizer: tokenizer, context: 256).items(items), sequences: batch, bytesPerPosition: 1,
      byteLimit: byteLimit)
  }

  @Test func unitsShareTheirSubjectsHeader() throws {
    let found = try units(TinyTask.choices, batch: 3)
    #expect(found.map { $0.items.map(\.index) } == [[0, 1, 2], [3], [4, 5, 6], [7], [8, 9, 10], [11]])
    #expect(found.map(\.group) == [0, 0, 1, 1, 2, 2])
    #expect(found.allSatisfy { $0.headerLength > 40 })
    for unit in found {
      for item in unit.items {
        #expect(item.sequences[0].starts(with: unit.header) && item.sequences[0].count > unit.headerLength)
      }
    }
  }

  @Test func unitsAreBounded() throws {
    let bytes = try units(TinyTask.generations, batch: 10, byteLimit: 200)
    #expect(bytes.count > 1 && bytes.flatMap(\.items).map(\.index) == Array(0..<6))
    #expect(bytes.allSatisfy { $0.items.count == 1 || $0.items.reduce(0) { $0 + $1.length } <= 200 })
    // Two texts each.
    #expect(try units(TinyTask.comparisons, batch: 4).map(\.items.count) == [2, 2])
    let mixed = try units(TinyTask.choices + TinyTask.comparisons + TinyTask.generations, batch: 100)
    #expect(mixed.flatMap(\.items).map(\.index) == Array(0..<22))
  }

  // MARK: Reading items

  @Test func middlesAreLeftOut() throws {
    let tokenizer = try #require(tiny.models.large.tokenizer)
    let reader = ItemTokenizer(tokenizer: tokenizer, context: 21)
    let item = TaskItem(
      id: "long", request: .generate(prompt: "abcdefghijklmnopqrstuvwxyz", maxTokens: 10, stop: []), references: [])
    let read = try reader.items([item])[0]
    #expect(read.isTruncated)
    #expect(tokenizer.decode(read.sequences[0]) == "abcde" + "uvwxyz")
    var options = tiny.options()
    options.context = 21
    let result = try TaskEvaluation(
      TinyTask(items: [item]), methods: [.unmapped], models: tiny.models, options: options
    )
    .run()[0]
    #expect(result.notes == ["1 of 1 prompts without their middle"])
  }

  /// As lm-evaluation-harness encodes: spaces at the prompt's end belong to the continuation.
  @Test func spacesMoveToTheContinuation() throws {
    let tokenizer = try #require(tiny.models.large.tokenizer)
    let item = TaskItem(
      id: "spaces", request: .choose(prompt: "Answer: \n", continuations: ["A"]), references: [])
    let read = try ItemTokenizer(tokenizer: tokenizer, context: 256).items([item])[0]
    #expect(tokenizer.decode(read.sequences[0]) == "Answer:")
    #expect(tokenizer.decode(read.continuations[0]) == " \nA")
  }

  @Test(arguments: [
    (TaskItem.Request.choose(prompt: "", continuations: ["a"]), "empty one"),
    (.choose(prompt: "a", continuations: []), "found none"),
    (.choose(prompt: "a", continuations: [""]), "at least one token"),
    (.generate(prompt: "a", maxTokens: 0, stop: []), "found 0"),
    (.generate(prompt: "a", maxTokens: 256, stop: []), "within the context of 256"),
    (.compare("a", ""), "empty one"),
  ])
  func itemsThatCannotBeAskedAreNamed(request: TaskItem.Request, problem: String) throws {
    let task = TinyTask(items: [TaskItem(id: "this", request: request, references: [])])
    #expect {
      try TaskEvaluation(task, methods: [.unmapped], models: tiny.models, options: tiny.options())
    } throws: {
      "\($0)".hasPrefix("item this: ") && "\($0)".contains(problem)
    }
  }

  @Test func noItemsTwoOfOneNameAndTooMuchMemoryAreRefused() throws {
    func problem(_ items: [TaskItem], _ options: TaskRunOptions<CPUBackend>) -> String {
      do {
        _ = try TaskEvaluation(TinyTask(items: items), methods: [.unmapped], models: tiny.models, options: options)
        return ""
      } catch { return "\(error)" }
    }
    #expect(problem([], tiny.options()).contains("at least one item"))
    #expect(problem([TinyTask.choices[0], TinyTask.choices[0]], tiny.options()).contains("two of 0-0"))
    var options = tiny.options()
    options.kvByteLimit = 1000
    #expect(problem(TinyTask.choices, options).contains("at most 1000 bytes"))
  }

  // MARK: Results and journals

  func evaluate(_ items: [TaskItem], _ methods: [EvaluationMethod], batch: Int = 3) throws -> TaskEvaluation<CPUBackend>
  {
    try TaskEvaluation(
      TinyTask(items: items), methods: methods, models: tiny.models, options: tiny.options(batch: batch))
  }

  /// Results apart from times.
  func timeless(_ results: [MethodResult]) -> [MethodResult] {
    results.map {
      var result = $0
      result.seconds = 0
      return result
    }
  }

  struct Interruption: Error {}

  /// Interrupted after each unit in turn, and with its last line cut off, an evaluation ends as one that was not.
  @Test func interruptedEvaluationsGoOn() throws {
    let items = TinyTask.choices
    let methods = try tiny.methods()
    let whole = try evaluate(items, methods).run(journalPath: tiny.folder("whole"))
    let journal = tiny.folder("part")
    var pieces = 0
    while pieces < 1000 {
      do {
        var asked = 0
        let size = { (try? Data(contentsOf: URL(fileURLWithPath: journal)).count) ?? 0 }
        var before = size()
        let results = try evaluate(items, methods).run(journalPath: journal) { _ in
          if size() > before { asked += 1 }
          before = size()
          if asked > 1 { throw Interruption() }
        }
        #expect(timeless(results) == timeless(whole))
        break
      } catch is Interruption {
        pieces += 1
        let content = try Data(contentsOf: URL(fileURLWithPath: journal))
        try content.dropLast(pieces % 3 * 40).write(to: URL(fileURLWithPath: journal))
      }
    }
    #expect(pieces > 10 && pieces < 1000)
    let lines = try String(contentsOfFile: journal, encoding: .utf8).split(separator: "\n")
    #expect(lines.count == 1 + items.count * methods.count)
  }

  /// Another list of methods uses what is there; other items, options or files are refused.
  @Test func journalsServeTheSameRunOnly() throws {
    let journal = tiny.folder("journal")
    let first = try evaluate(TinyTask.choices, [.unmapped]).run(journalPath: journal, inputs: "a")
    let both = try evaluate(TinyTask.choices, [.paper(ratio: 0.34), .unmapped]).run(journalPath: journal, inputs: "a")
    #expect(both[1].seconds == first[0].seconds && both[1].scores == first[0].scores)
    #expect(both[0].differences.keys.sorted() == ["best"] && both[1].differences.isEmpty)
    func refuses(_ items: [TaskItem], batch: Int = 3, inputs: String = "a") -> Bool {
      do {
        _ = try evaluate(items, [.unmapped], batch: batch).run(journalPath: journal, inputs: inputs)
        return false
      } catch { return "\(error)".contains("expected the journal of this run") }
    }
    #expect(!refuses(TinyTask.choices))
    #expect(refuses(TinyTask.choices, inputs: "b"))
    #expect(refuses(TinyTask.choices, batch: 2))
    #expect(refuses(TinyTask.choices.dropLast()))
  }

  /// A part of the items comes from all of the data: of ten items 0, 3 and 6.
  @Test func limitsSpreadOverTheData() throws {
    let items = Array(TinyTask.choices.prefix(10))
    func asked(limit: Int) throws -> [Int] {
      let journal = tiny.folder("journal-\(limit)")
      _ = try TaskEvaluation(
        TinyTask(items: items), limit: limit, methods: [.unmapped], models: tiny.models, options: tiny.options()
      ).run(journalPath: journal)
      let answers = try String(contentsOfFile: journal, encoding: .utf8)
      return items.indices.filter { answers.contains("\"item\":\"\(items[$0].id)\"") }
    }
    #expect(try asked(limit: 3) == [0, 3, 6])
    #expect(try asked(limit: 100) == Array(0..<10))
  }

  @Test func resultsSayWhatWasHeld() throws {
    let results = try evaluate(TinyTask.choices, tiny.methods()).run()
    let (unmapped, small, paper) = (results[0], results[1], results[2])
    #expect(unmapped.kvBytes == unmapped.unmappedKVBytes && unmapped.differences.isEmpty)
    // Heads of 16 elements in 2 layers, of 8 in 3.
    #expect(small.unmappedKVBytes == unmapped.unmappedKVBytes && 3 * small.kvBytes == 4 * small.unmappedKVBytes)
    #expect(paper.unmappedKVBytes == unmapped.unmappedKVBytes && paper.differences.count == 1)
    #expect(unmapped.groups.keys.sorted() == ["subject/0", "subject/1", "subject/2"])
    #expect(
      results.map(\.method) == [
        "unmapped", "small", "paper:0.34", "random:0.67", "shared:0.34", "streaming:1.0", "plan:tiny.json",
      ])
    #expect(results[5].notes?.first?.contains("4 sinks") == true)
  }
}
