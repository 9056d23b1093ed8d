// ROUGE-1, -2 and -L of a summary, as PyPI `rouge` 1.0.1 counts them, which is what LongBench reports.
//
// Sentences end at full stops, words at white space; nothing is lower-cased or stemmed. N-grams are sets, across
// sentences. ROUGE-L is that of whole summaries: the different words that stand in a longest common subsequence of
// any sentence of the summary and any of the reference. Other implementations differ; `make_metrics.py` checks ours.

/// F scores, 0 to 1.
public struct RougeScores: Sendable, Hashable {
  /// Of single words.
  public var rouge1 = 0.0
  /// Of pairs of words that follow one another.
  public var rouge2 = 0.0
  /// Of longest common subsequences.
  public var rougeL = 0.0

  /// All are 0 where the summary or the reference has no sentence.
  public init(_ summary: String, reference: String) {
    var vocabulary: [[Unicode.Scalar]: Int32] = [:]
    let summary = Self.sentences(of: summary, &vocabulary)
    let reference = Self.sentences(of: reference, &vocabulary)
    guard !summary.isEmpty, !reference.isEmpty else { return }
    let words = (summary: Array(summary.joined()), reference: Array(reference.joined()))
    let unigrams = (summary: Set(words.summary), reference: Set(words.reference))
    let bigrams = (summary: Self.bigrams(words.summary), reference: Self.bigrams(words.reference))
    rouge1 = Self.f(unigrams.summary.intersection(unigrams.reference).count, unigrams.summary, unigrams.reference)
    rouge2 = Self.f(bigrams.summary.intersection(bigrams.reference).count, bigrams.summary, bigrams.reference)
    var common = Set<Int32>()
    for sentence in reference {
      for other in summary { Self.insertCommonSubsequence(sentence, other, into: &common) }
    }
    rougeL = Self.f(common.count, unigrams.summary, unigrams.reference)
  }

  /// The words of each sentence, as numbers. One of nothing but white space has one word, which is empty.
  private static func sentences(
    of text: String, _ vocabulary: inout [[Unicode.Scalar]: Int32]
  ) -> [[Int32]] {
    text.unicodeScalars.split(separator: ".").map { sentence in
      let words = sentence.split(whereSeparator: \.isSpace).map(Array.init)
      return (words.isEmpty ? [[]] : words).map { word in
        if let known = vocabulary[word] { return known }
        let new = Int32(vocabulary.count)
        vocabulary[word] = new
        return new
      }
    }
  }

  private static func bigrams(_ words: [Int32]) -> Set<Int64> {
    Set(zip(words, words.dropFirst()).map { Int64($0) << 32 | Int64($1) })
  }

  private static func f<Gram>(_ common: Int, _ summary: Set<Gram>, _ reference: Set<Gram>) -> Double {
    let precision = summary.isEmpty ? 0 : Double(common) / Double(summary.count)
    let recall = reference.isEmpty ? 0 : Double(common) / Double(reference.count)
    return 2 * (precision * recall / (precision + recall + 1e-8))
  }

  /// Adds the words of a longest common subsequence: of several, the one that is met by going back from the ends, in
  /// `second` unless only `first` keeps the length.
  private static func insertCommonSubsequence(_ first: [Int32], _ second: [Int32], into words: inout Set<Int32>) {
    let width = second.count + 1
    var lengths = [Int32](repeating: 0, count: (first.count + 1) * width)
    for i in 1...first.count {
      for j in 1...second.count {
        lengths[i * width + j] =
          first[i - 1] == second[j - 1]
          ? lengths[(i - 1) * width + j - 1] + 1 : max(lengths[(i - 1) * width + j], lengths[i * width + j - 1])
      }
    }
    var (i, j) = (first.count, second.count)
    while i > 0, j > 0 {
      if first[i - 1] == second[j - 1] {
        words.insert(first[i - 1])
        (i, j) = (i - 1, j - 1)
      } else if lengths[(i - 1) * width + j] > lengths[i * width + j - 1] {
        i -= 1
      } else {
        j -= 1
      }
    }
  }
}
