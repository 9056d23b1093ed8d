// How well a short answer matches: token F1 and exact match, as SQuAD and HotpotQA count them.
//
// Normalisation: lower case, without ASCII punctuation, without the words a, an and the, white space as single spaces.
// Checked against PyPI `torchmetrics` (`make_metrics.py`); of two answers of which nothing is left, that takes F1 for 1.

/// An answer, normalised and cut into words.
struct NormalAnswer: Equatable {
  let words: [[Unicode.Scalar]]

  init(_ answer: String) {
    var kept: [Unicode.Scalar] = []
    for scalar in answer.lowercased().unicodeScalars where !Self.isPunctuation(scalar) { kept.append(scalar) }
    words = Self.withoutArticles(kept).split(whereSeparator: \.isSpace).map(Array.init)
  }

  /// The text with a space in place of each article. Words end where letters and digits do, not only at spaces.
  private static func withoutArticles(_ text: [Unicode.Scalar]) -> [Unicode.Scalar] {
    var result: [Unicode.Scalar] = []
    var word: [Unicode.Scalar] = []
    func flush() {
      let isArticle = word == ["a"] || word == ["a", "n"] || word == ["t", "h", "e"]
      result += isArticle ? [" "] : word
      word.removeAll()
    }
    for scalar in text {
      if scalar.isPythonWord {
        word.append(scalar)
      } else {
        flush()
        result.append(scalar)
      }
    }
    flush()
    return result
  }

  private static func isPunctuation(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar {
    case "!"..."/", ":"..."@", "["..."`", "{"..."~": true
    default: false
    }
  }
}

/// The harmonic mean of precision and recall of an answer's words, 0 to 1.
public func answerF1(_ answer: String, reference: String) -> Double {
  let (answer, reference) = (NormalAnswer(answer).words, NormalAnswer(reference).words)
  if answer.isEmpty || reference.isEmpty { return answer == reference ? 1 : 0 }
  var left: [[Unicode.Scalar]: Int] = [:]
  for word in reference { left[word, default: 0] += 1 }
  var common = 0
  for word in answer where left[word, default: 0] > 0 {
    left[word]? -= 1
    common += 1
  }
  if common == 0 { return 0 }
  let precision = Double(common) / Double(answer.count)
  let recall = Double(common) / Double(reference.count)
  return 2 * precision * recall / (precision + recall)
}

/// 1 where an answer is the reference once both are normalised, else 0.
public func exactMatch(_ answer: String, reference: String) -> Double {
  NormalAnswer(answer) == NormalAnswer(reference) ? 1 : 0
}

extension Unicode.Scalar {
  /// Whether Python's `\w` matches: letters, what has a numeric value, and the underscore.
  fileprivate var isPythonWord: Bool {
    switch properties.generalCategory {
    case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter: true
    default: self == "_" || properties.numericType != nil
    }
  }
}
