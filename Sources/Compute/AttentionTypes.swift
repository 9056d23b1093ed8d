// What the attention operations of a backend take: cache types, pages, segments of a batch, loans.

import CKindredKernels
import Foundation

// swift-format-ignore: AlwaysUseLowerCamelCase
/// The type in which keys and values are stored.
public enum KVType: String, Sendable, CaseIterable, Codable {
  case f32, f16, bf16
  /// GGUF's blocks of 32 elements of a head that share a scale: 8.5 or 4.5 bits an element.
  case q8_0, q4_0

  /// Elements of a head at one position that are stored together.
  public var blockElements: Int { self == .q8_0 || self == .q4_0 ? 32 : 1 }

  /// Bytes of ``blockElements`` elements.
  var blockByteCount: Int {
    switch self {
    case .f32: 4
    case .f16, .bf16: 2
    case .q8_0: 34
    case .q4_0: 18
    }
  }

  /// Checks that a head fills whole blocks.
  ///
  /// - Throws: `ComputeError.headDimension`.
  public func check(headDimension: Int) throws(ComputeError) {
    guard headDimension.isMultiple(of: blockElements) else {
      throw .headDimension(type: self, found: headDimension)
    }
  }

  package var kernelType: kindred_type {
    switch self {
    case .f32: KINDRED_F32
    case .f16: KINDRED_F16
    case .bf16: KINDRED_BF16
    case .q8_0: KINDRED_Q8_0
    case .q4_0: KINDRED_Q4_0
    }
  }
}

/// How the cache is cut into pages.
public enum KVPageLayout {
  /// Consecutive positions in one page, of one KV head.
  public static let positions = KINDRED_PAGE_POSITIONS

  /// Consecutive positions in one block: what a near window is cut into.
  public static let blockPositions = KINDRED_KEY_BLOCK

  /// Bytes of one page of keys, or of values; or of a block of as many `positions`. The head fills whole blocks of the
  /// type (``KVType/check(headDimension:)``).
  public static func byteCount(headDimension: Int, type: KVType, positions: Int = positions) -> Int {
    positions * headDimension / type.blockElements * type.blockByteCount
  }

  /// Pages that hold positions `0..<length`.
  public static func pageCount(length: Int) -> Int { (length + positions - 1) / positions }
}

/// Which half of the cache.
public enum KVPart: Sendable {
  case keys, values
}

/// Consecutive rows of a batch that belong to one sequence, with the cache of one layer for that sequence.
public struct AttentionSegment<Page> {
  /// Rows of the batch.
  public var rows: Range<Int>
  /// The position of the first row; the others follow.
  public var firstPosition: Int
  /// Pages of keys by KV head; empty for a head that stores none, or only near ones.
  public var keys: [[Page]]
  /// Pages of values by KV head; empty for a head that stores only near ones.
  public var values: [[Page]]
  /// What KV heads with a near window store in blocks.
  public var near: [Int: NearPages<Page>]

  public init(
    rows: Range<Int>, firstPosition: Int, keys: [[Page]], values: [[Page]], near: [Int: NearPages<Page>] = [:]
  ) {
    self.rows = rows
    self.firstPosition = firstPosition
    self.keys = keys
    self.values = values
    self.near = near
  }
}

/// The heads of one attention layer.
public struct AttentionShape: Sendable, Hashable {
  /// Query heads, `H`.
  public var queryHeads: Int
  /// KV heads, `G`; each serves `H / G` consecutive query heads.
  public var kvHeads: Int
  /// Elements of one head, `D`.
  public var headDimension: Int

  public init(queryHeads: Int, kvHeads: Int, headDimension: Int) {
    self.queryHeads = queryHeads
    self.kvHeads = kvHeads
    self.headDimension = headDimension
  }

  /// Query heads that share a KV head, `R`.
  public var groupSize: Int { queryHeads / kvHeads }

  /// What logits are multiplied by, `1 / √D`.
  public var scale: Float { 1 / Float(headDimension).squareRoot() }
}

/// Ordinary attention of some KV heads of a layer.
public struct AttentionRequest<B: Backend> {
  /// Rotated queries, `[rows, H · D]`.
  public var query: B.Tensor
  /// The layer's heads.
  public var shape: AttentionShape
  /// The type of its keys and values.
  public var type: KVType
  /// The KV heads to attend; the others' slices of `output` are left alone.
  public var groups: [Int]
  /// `[rows, H · D]`.
  public var output: B.Tensor
  /// `[rows, H]`: the log-sum-exp of each row's logits, for lending. Not computed where `nil`.
  public var logSumExp: B.Tensor?
  /// Query heads whose post-softmax rows are wanted, each with where its tiles go (``AttentionTiles``): few rows of each
  /// segment, as in decode.
  public var kept: [(head: Int, tiles: B.Tensor)]

  public init(
    query: B.Tensor, shape: AttentionShape, type: KVType, groups: [Int], output: B.Tensor, logSumExp: B.Tensor?,
    kept: [(head: Int, tiles: B.Tensor)] = []
  ) {
    self.kept = kept
    self.query = query
    self.shape = shape
    self.type = type
    self.groups = groups
    self.output = output
    self.logSumExp = logSumExp
  }
}

/// What one head of a lending model leaves behind: enough to recompute any tile of its post-softmax map as
/// `exp(q · k / √d − logSumExp)`, which is normalised already.
public struct LentHead<B: Backend> {
  /// Rotated queries, `[rows, h · d]`.
  public var query: B.Tensor
  /// `[rows, h]`.
  public var logSumExp: B.Tensor
  /// The lending layer's heads.
  public var shape: AttentionShape
  /// The type of the lending model's keys.
  public var type: KVType
  /// The head, below `shape.queryHeads`.
  public var head: Int
  /// The lending model's pages of keys for the head's KV head, by segment of the batch.
  public var keys: [[B.Page]]
  /// The rows themselves, where they were kept (see ``AttentionRequest/kept``).
  public var tiles: B.Tensor?

  public init(query: B.Tensor, logSumExp: B.Tensor, shape: AttentionShape, type: KVType, head: Int, keys: [[B.Page]]) {
    self.query = query
    self.logSumExp = logSumExp
    self.shape = shape
    self.type = type
    self.head = head
    self.keys = keys
  }
}

/// How kept rows are laid out: for each segment, for each page of positions, `[rows of the segment, 64]`. Positions
/// after a row's own are 0.
public enum AttentionTiles {
  /// Rows of a segment up to which they can be kept.
  public static let mostRows = 8

  /// The rows of 64 elements that a tensor for runs of `rows` rows from `firstPosition` on needs.
  public static func rowCount(_ runs: [(rows: Int, firstPosition: Int)]) -> Int {
    runs.reduce(0) { $0 + KVPageLayout.pageCount(length: $1.firstPosition + $1.rows) * $1.rows }
  }

  /// Tiles of all `segments` in units of one row (64 elements): the start of each segment, and the total.
  static func rowOffsets<Page>(_ segments: [AttentionSegment<Page>]) -> [Int] {
    segments.reduce(into: [0]) { $0.append($0[$0.count - 1] + rowCount([($1.rows.count, $1.firstPosition)])) }
  }
}

/// The query heads of one KV head that use a lent head.
public struct Borrower: Sendable, Hashable {
  /// The KV head whose values the lent rows meet.
  public var group: Int
  /// The query heads that take the product, at least one.
  public var queryHeads: [Int]
  /// What the product counts for each of `queryHeads`.
  public var weights: [Float]

  public init(group: Int, queryHeads: [Int], weights: [Float]) {
    self.group = group
    self.queryHeads = queryHeads
    self.weights = weights
  }
}

/// One lent head's rows, and whom in the borrowing layer they serve.
public struct Loan<B: Backend> {
  /// Whose rows they are.
  public var lender: LentHead<B>
  /// The KV heads of the borrowing layer that use the rows, each once.
  public var borrowers: [Borrower]

  public init(lender: LentHead<B>, borrowers: [Borrower]) {
    self.lender = lender
    self.borrowers = borrowers
  }
}

/// Attention of a layer's mapped KV heads: lent rows, and own keys in near windows.
public struct BorrowRequest<B: Backend> {
  /// All lent heads that the layer uses, each once.
  public var loans: [Loan<B>]
  /// The KV heads to attend; the others' slices of `output` are left alone.
  public var groups: [Int]
  /// The borrowing layer's heads.
  public var shape: AttentionShape
  /// The type of the borrowing layer's keys and values.
  public var type: KVType
  /// `[rows, H · D]`.
  public var output: B.Tensor
  /// The borrowing layer's rotated queries, `[rows, H · D]`; read for KV heads with a near window.
  public var query: B.Tensor?
  /// Room for products of lent rows and values, `[rows, at least D for each (loan, borrower)]`; used where weights are
  /// not all 1 or KV heads have a near window.
  public var products: B.Tensor?

  public init(
    loans: [Loan<B>], groups: [Int], shape: AttentionShape, type: KVType, output: B.Tensor, query: B.Tensor? = nil,
    products: B.Tensor? = nil
  ) {
    self.loans = loans
    self.groups = groups
    self.shape = shape
    self.type = type
    self.output = output
    self.query = query
    self.products = products
  }

  /// Whether every query head takes one lent head's rows as they are, so that products are outputs.
  var isPlain: Bool {
    let borrowers = loans.flatMap(\.borrowers)
    let heads = borrowers.flatMap(\.queryHeads)
    return borrowers.allSatisfy { $0.weights.allSatisfy { $0 == 1 } }
      && heads.count == groups.count * shape.groupSize && Set(heads).count == heads.count
  }

  /// The same loans with an output for each (loan, borrower), in order, instead of for each query head.
  func separated(into products: B.Tensor) -> BorrowRequest {
    var separated = self
    separated.output = products
    var count = 0
    for index in loans.indices {
      separated.loans[index].borrowers = loans[index].borrowers.map { borrower in
        defer { count += 1 }
        return Borrower(group: borrower.group, queryHeads: [count], weights: [1])
      }
    }
    return separated
  }

  /// Kept rows by the KV head that uses them; loans without are left out.
  func loansByGroup() -> [(group: Int, loans: [KeptLoan<B>])] {
    (0..<shape.kvHeads).compactMap { group in
      let kept = loans.flatMap { loan in
        loan.borrowers.compactMap { borrower in
          loan.lender.tiles.flatMap { tiles in
            borrower.group == group ? KeptLoan<B>(tiles: tiles, queryHeads: borrower.queryHeads) : nil
          }
        }
      }
      return kept.isEmpty ? nil : (group, kept)
    }
  }
}

/// Kept rows of one lent head, and the query heads of one KV head that they serve.
struct KeptLoan<B: Backend> {
  let tiles: B.Tensor
  let queryHeads: [Int]
}

/// Cosines and sines of the rotary angles of each row of a batch.
public struct RotaryAngles: Sendable {
  /// Half the rotated elements of a head.
  public let half: Int
  /// Whether pairs are `(2i, 2i + 1)` instead of `(i, i + half)`.
  public let interleaved: Bool
  /// `[rows, half]`.
  public let cosines: [Float]
  /// `[rows, half]`.
  public let sines: [Float]

  /// - Parameters:
  ///   - positions: the position of each row.
  ///   - frequencies: radians per position, `[half]`.
  ///   - interleaved: whether rotated pairs are neighbours.
  public init(positions: [Int], frequencies: [Double], interleaved: Bool) {
    half = frequencies.count
    self.interleaved = interleaved
    var cosines: [Float] = []
    var sines: [Float] = []
    cosines.reserveCapacity(positions.count * half)
    sines.reserveCapacity(positions.count * half)
    for position in positions {
      for frequency in frequencies {
        // PyTorch computes position × frequency in float; at position 30,000 that alone moves an angle by 1e-3.
        let angle = Float(position) * Float(frequency)
        cosines.append(cos(angle))
        sines.append(sin(angle))
      }
    }
    self.cosines = cosines
    self.sines = sines
  }
}
