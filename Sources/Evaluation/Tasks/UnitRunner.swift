// Answers the items of a unit by one method. Prompts that begin alike are read once up to where they part; from there
// on all of them go through common passes, in prefill as in generation.

import Foundation
import KindredCompute
import KindredGeneration
import KindredTokenization
import KindredTransformer

/// What became of an item.
package struct ItemOutcome: Sendable, Hashable {
  package var response: TaskResponse
  /// At the end of the item.
  package var kv: KVBytes
}

/// Runs units one after another by one method.
package final class UnitRunner<B: Backend> {
  private let method: RunnableMethod<B>
  private let tokenizer: Tokenizer
  private let options: Session<B>.Options
  /// The session that the next unit may use, and the group whose header it has read.
  private var shared: (session: Session<B>, group: Int)?

  package init(method: RunnableMethod<B>, tokenizer: Tokenizer, options: Session<B>.Options) {
    self.method = method
    self.tokenizer = tokenizer
    self.options = options
  }

  /// The outcomes of a unit's items, in order.
  ///
  /// - Parameter items: the task's items, by `TokenizedItem.index`.
  package func run(_ unit: TaskUnit, of items: [TaskItem]) throws -> [ItemOutcome] {
    // A recipe finds its map on the first tokens of sequence 0: on those that all items have in common, or on each
    // prompt's own.
    if let unmapped = method.mapping?.unmappedTokens, unmapped > unit.headerLength {
      return try unit.items.flatMap { try runAlone($0, of: items) }
    }
    let session = try session(for: unit)
    defer { session.removeSequences(from: 1) }
    let sequences = unit.items.flatMap { item in item.sequences.map { _ in session.fork(0) } }
    return try answer(unit.items, of: items, session: session, sequences: sequences, skip: unit.headerLength)
  }

  private func runAlone(_ item: TokenizedItem, of items: [TaskItem]) throws -> [ItemOutcome] {
    if item.sequences.count == 1 {
      return try answer([item], of: items, session: try newSession(), sequences: [0], skip: 0)
    }
    let read = try item.sequences.map { text in
      let session = try newSession()
      return (try session.finalStates(after: [Session<B>.Part(sequence: 0, tokens: text)])[0], session.kvBytes)
    }
    return [Self.comparison(read[0], read[1])]
  }

  private func newSession() throws -> Session<B> {
    try Session(decoder: method.decoder, mapping: method.mapping, options: options)
  }

  /// A session whose sequence 0 has read the unit's header, from an empty cache: what other units left would change
  /// which rows share a pass.
  private func session(for unit: TaskUnit) throws -> Session<B> {
    if let shared, shared.group == unit.group { return shared.session }
    var session: Session<B>
    if let shared, method.mapping?.unmappedTokens ?? 0 == 0 {
      session = shared.session
      session.truncate(to: 0)
    } else {
      shared = nil
      session = try newSession()
    }
    if unit.headerLength > 0 { _ = try session.append(Array(unit.header)) }
    shared = (session, unit.group)
    return session
  }

  /// Answers items whose sequences have read their first `skip` tokens.
  ///
  /// - Parameter sequences: the session's sequence of each item's sequence, item after item.
  private func answer(
    _ asked: [TokenizedItem], of items: [TaskItem], session: Session<B>, sequences: [Int], skip: Int
  ) throws -> [ItemOutcome] {
    guard let first = asked.first else { return [] }
    let prompts = zip(sequences, asked.flatMap(\.sequences)).map { sequence, tokens in
      Session<B>.Part(sequence: sequence, tokens: Array(tokens[skip...]))
    }
    switch items[first.index].request {
    case .choose: return try choose(asked, prompts, session: session)
    case .generate: return try generate(asked, of: items, prompts, session: session)
    case .compare: return try compare(asked, prompts, session: session)
    }
  }

  // MARK: Choosing

  private func choose(
    _ asked: [TokenizedItem], _ prompts: [Session<B>.Part], session: Session<B>
  ) throws -> [ItemOutcome] {
    var sums = asked.map { Array(repeating: 0.0, count: $0.continuations.count) }
    try session.append(prompts) { item, _, logits in
      let prediction = Prediction(logits: logits)
      for (index, tokens) in asked[item].continuations.enumerated() {
        sums[item][index] = prediction.logProbability(tokens[0])
      }
    }
    let kv = prompts.map { session.kvBytes(of: $0.sequence) }
    // The prompt's last row predicts the first token; the others need rows of their own.
    for (item, question) in asked.enumerated() {
      let longer = question.continuations.indices.filter { question.continuations[$0].count > 1 }
      let firstFork = prompts.map(\.sequence).max().map { $0 + 1 } ?? 1
      let parts = longer.map { index in
        let tokens = Array(question.continuations[index].dropLast())
        return Session<B>.Part(sequence: session.fork(prompts[item].sequence), tokens: tokens, wanted: tokens.count)
      }
      guard !parts.isEmpty else { continue }
      try session.append(parts) { part, token, logits in
        let index = longer[part]
        sums[item][index] += Prediction(logits: logits).logProbability(question.continuations[index][token + 1])
      }
      session.removeSequences(from: firstFork)
    }
    return asked.indices.map { ItemOutcome(response: .logLikelihoods(sums[$0]), kv: kv[$0]) }
  }

  // MARK: Generating

  private func generate(
    _ asked: [TokenizedItem], of items: [TaskItem], _ prompts: [Session<B>.Part], session: Session<B>
  ) throws -> [ItemOutcome] {
    var answers = asked.map { Answer(to: items[$0.index], tokenizer: tokenizer) }
    var next = prompts
    while !next.isEmpty {
      var following: [Session<B>.Part] = []
      let places = next.map { part in prompts.firstIndex { $0.sequence == part.sequence } }
      try session.append(next) { part, _, logits in
        guard let item = places[part] else { return }
        let token = Sampler.mostLikely(logits)
        if answers[item].push(token) {
          following.append(Session<B>.Part(sequence: next[part].sequence, tokens: [token]))
        }
      }
      next = following
    }
    return asked.indices.map {
      ItemOutcome(response: .text(answers[$0].text), kv: session.kvBytes(of: prompts[$0].sequence))
    }
  }

  /// Text that is being generated.
  private struct Answer {
    private(set) var text = ""
    private var left: Int
    private let ends: Set<Int32>
    private var detokenizer: StreamingDetokenizer
    private var filter: StopFilter

    init(to item: TaskItem, tokenizer: Tokenizer) {
      guard case .generate(_, let maxTokens, let stop) = item.request else {
        preconditionFailure("nothing to generate")
      }
      left = maxTokens
      ends = tokenizer.endOfGenerationIDs
      detokenizer = StreamingDetokenizer(tokenizer)
      filter = StopFilter(stop)
    }

    /// Takes the next token; whether more are wanted.
    mutating func push(_ token: Int32) -> Bool {
      let isEnd = ends.contains(token)
      if !isEnd {
        text += filter.push(detokenizer.push(token))
        left -= 1
      }
      if !isEnd, left > 0, !filter.hasStopped { return true }
      text += filter.push(detokenizer.flush()) + filter.flush()
      return false
    }
  }

  // MARK: Comparing

  private func compare(
    _ asked: [TokenizedItem], _ texts: [Session<B>.Part], session: Session<B>
  ) throws -> [ItemOutcome] {
    let states = try session.finalStates(after: texts)
    let read = zip(states, texts).map { ($0, session.kvBytes(of: $1.sequence)) }
    return asked.indices.map { Self.comparison(read[2 * $0], read[2 * $0 + 1]) }
  }

  private static func comparison(
    _ first: (state: [Float], kv: KVBytes), _ second: (state: [Float], kv: KVBytes)
  ) -> ItemOutcome {
    ItemOutcome(response: .similarity(cosine(first.state, second.state)), kv: first.kv + second.kv)
  }
}

/// The cosine of two vectors; 0 where one is zero.
package func cosine(_ first: [Float], _ second: [Float]) -> Double {
  var (product, firstSquare, secondSquare) = (0.0, 0.0, 0.0)
  for (a, b) in zip(first, second) {
    product += Double(a) * Double(b)
    firstSquare += Double(a) * Double(a)
    secondSquare += Double(b) * Double(b)
  }
  let norms = (firstSquare * secondSquare).squareRoot()
  return norms > 0 ? max(-1, min(1, product / norms)) : 0
}
