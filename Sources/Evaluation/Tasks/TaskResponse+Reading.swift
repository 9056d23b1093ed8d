// Answers as the tasks expect them.

extension TaskResponse {
  /// The answer to a request for text.
  func requireText() throws -> String {
    guard case .text(let text) = self else { throw UnexpectedResponse(expected: "text", found: self) }
    return text
  }

  /// The index of the continuation with the greatest log-likelihood: the first, where several have it.
  func likeliest(of count: Int) throws -> Int {
    guard case .logLikelihoods(let values) = self, values.count == count,
      let best = values.indices.max(by: { values[$0] < values[$1] || (values[$0] == values[$1] && $0 > $1) })
    else { throw UnexpectedResponse(expected: "\(count) log-likelihoods", found: self) }
    return best
  }

  /// The answer to a request to compare.
  func requireSimilarity() throws -> Double {
    guard case .similarity(let value) = self else { throw UnexpectedResponse(expected: "a similarity", found: self) }
    return value
  }
}

/// An answer to another kind of request than an item's: a journal of another task, or a fault of the runner.
struct UnexpectedResponse: Error, CustomStringConvertible {
  let expected: String
  let found: TaskResponse

  var description: String {
    let found =
      switch self.found {
      case .logLikelihoods(let values): "\(values.count) log-likelihoods"
      case .text: "text"
      case .similarity: "a similarity"
      }
    return "expected \(expected) as the answer to an item, found \(found)"
  }
}

extension String {
  /// The text without white space at its ends.
  var trimmed: String {
    let scalars = unicodeScalars.drop(while: \.isSpace)
    guard let last = scalars.lastIndex(where: { !$0.isSpace }) else { return "" }
    return String(scalars[...last])
  }
}
