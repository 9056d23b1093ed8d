// Two models reading the same tokens unmapped, and how alike their heads' maps are over the rows read.

import KindredAttention
import KindredCompute
import KindredKVStore
import KindredTransformer

/// A text as two models read it, from an empty cache of each. No map is kept: of each block of rows only sums are.
package final class AttentionReader<B: Backend> {
  /// Rows of one pass.
  private static var blockRows: Int { 128 }

  private let models: (large: DecoderModel<B>, small: DecoderModel<B>)
  private let states: (large: RunState<B>, small: RunState<B>)
  private let records: (large: LentAttention<B>, small: LentAttention<B>)
  private let similarity: HeadSimilarity<B>
  private let sequences: (large: Int, small: Int)

  /// Tokens read.
  package private(set) var count = 0

  package init(
    large: DecoderModel<B>, small: DecoderModel<B>, measure: SimilarityMeasure = .cosine, kvType: KVType
  ) throws {
    func state(_ model: DecoderModel<B>) throws -> RunState<B> {
      try RunState(model.configuration, backend: model.backend, rowCapacity: Self.blockRows, kvType: kvType)
    }
    func record(_ model: DecoderModel<B>, _ state: RunState<B>) throws -> LentAttention<B> {
      try LentAttention(
        backend: model.backend, store: state.store, layers: 0..<model.configuration.layerCount,
        rowCapacity: Self.blockRows)
    }
    models = (large, small)
    states = (try state(large), try state(small))
    records = (try record(large, states.large), try record(small, states.small))
    similarity = HeadSimilarity(measure, backend: large.backend)
    sequences = (states.large.store.addSequence(), states.small.store.addSequence())
  }

  /// Reads on, and compares all heads of the large model with all of the small one over the rows of these tokens.
  ///
  /// - Parameter tokens: at least one.
  /// - Throws: `DecoderError` for tokens outside a vocabulary, or more of them than a context holds.
  package func read(_ tokens: [Int32]) throws -> SimilaritySums {
    var total: SimilaritySums?
    for start in stride(from: 0, to: tokens.count, by: Self.blockRows) {
      let block = tokens[start..<min(start + Self.blockRows, tokens.count)]
      let runs = (
        large: try pass(block, models.large, states.large, records.large, sequence: sequences.large),
        small: try pass(block, models.small, states.small, records.small, sequence: sequences.small)
      )
      let sums = try similarity.sums(
        of: records.large, layers: Array(0..<models.large.configuration.layerCount), with: records.small,
        layerCount: models.small.configuration.layerCount, runs: runs)
      count += block.count
      if total == nil { total = sums } else { total?.add(sums) }
    }
    guard let total else { preconditionFailure("expected at least one token to read") }
    return total
  }

  private func pass(
    _ tokens: some Collection<Int32>, _ model: DecoderModel<B>, _ state: RunState<B>, _ record: LentAttention<B>,
    sequence: Int
  ) throws -> SequenceRows {
    var batch = Batch()
    batch.append(tokens, to: sequence, from: count)
    record.truncate()
    try model.forward(batch, state: state, lending: record)
    return batch.runs[0]
  }
}
