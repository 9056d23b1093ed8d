// Mixtures, near windows and both together against their slow twin: whole maps in double precision.

import KindredCompute
import Testing

@Suite struct NearFarAttentionTests {
  static func small(_ type: KVType) -> AttentionShape {
    AttentionShape(queryHeads: 4, kvHeads: 2, headDimension: type.blockElements > 1 ? 64 : 12)
  }

  /// What a KV head of the large layer does.
  struct Form: CustomTestStringConvertible {
    var name: String
    var window: NearWindow?
    /// What each small head counts for each of the three query heads.
    var mixture: [[Float]] = [[], [], []]
    /// Whether rows come from the same layer's own heads, as from a lower layer.
    var sharesRows = false
    var dropsValues = false

    var testDescription: String { name }
  }

  /// Rows that sum to 1, to less, and to more.
  static let mixture: [[Float]] = [[0.5, 0, 0.25, 0.25], [0, 0.3, 0, 0.2], [1, 0.5, 0, 0]]
  static let forms = [
    Form(name: "mixture", mixture: mixture),
    Form(name: "mixture after 4 + 16", window: NearWindow(positions: 16, sinks: 4), mixture: mixture),
    Form(name: "mixture after 70", window: NearWindow(positions: 70), mixture: mixture),
    Form(name: "mixture after 67 + 1", window: NearWindow(positions: 1, sinks: 67), mixture: mixture),
    Form(name: "window past the end", window: NearWindow(positions: 1000, sinks: 2), mixture: mixture),
    Form(name: "shared rows", sharesRows: true),
    Form(name: "shared rows after 33", window: NearWindow(positions: 33), sharesRows: true),
    Form(name: "sinks alone", window: NearWindow(positions: 20, sinks: 3), dropsValues: true),
    Form(name: "window alone", window: NearWindow(positions: 65), dropsValues: true),
  ]

  /// A form in one KV head, and the first form in the other.
  @Test(arguments: InstructionSet.available, forms)
  func agreesWithWholeMaps(set: InstructionSet, form: Form) throws {
    for rows in [0..<300, 0..<1, 40..<70, 299..<300] {
      for type in KVType.allCases {
        try check([form, Self.forms[0]], rows: rows, set: set, type: type, kept: false)
        try check([Self.forms[0], form], rows: rows, set: set, type: type, kept: true)
      }
    }
  }

  private func check(_ forms: [Form], rows: Range<Int>, set: InstructionSet, type: KVType, kept: Bool) throws {
    let small = Heads(Self.small(type), positions: rows.upperBound, seed: 5, type: type)
    let large = Heads(AttentionTests.shape(type), positions: rows.upperBound, seed: 6, type: type)
    let found = try run(forms, small: small, large: large, rows: rows, set: set, type: type, kept: kept)
    let d = large.shape.headDimension
    let columns = 6 * d
    for (index, position) in rows.enumerated() {
      for head in 0..<6 {
        let row = Self.row(of: forms[head / 3], head: head, position: position, small: small, large: large)
        let expected = large.product(row, group: head / 3)
        for c in 0..<d {
          let difference = abs(Double(found[index * columns + head * d + c]) - expected[c])
          #expect(
            difference < AttentionTests.tolerance(type),
            "\(forms[head / 3].name), \(type), row \(position), head \(head)")
        }
      }
    }
  }

  /// The whole row of weights: far ones as borrowed, near ones sharing what these leave.
  static func row(of form: Form, head: Int, position: Int, small: Heads, large: Heads) -> [Double] {
    let own = large.row(head: head, position: position)
    let far = form.window?.far(of: position) ?? 0..<position + 1
    var row = Array(repeating: 0.0, count: position + 1)
    if form.sharesRows {
      for other in far { row[other] = own[other] }
    } else {
      for (smallHead, weight) in form.mixture[head % 3].enumerated() {
        let lent = small.row(head: smallHead, position: position)
        for other in far { row[other] += Double(weight) * lent[other] }
      }
    }
    guard form.window != nil else { return row }
    let near = row.indices.filter { !far.contains($0) }
    let share = max(0, 1 - row.reduce(0, +)) / near.reduce(0) { $0 + own[$1] }
    for other in near { row[other] = share * own[other] }
    return row
  }

  private func run(
    _ forms: [Form], small: Heads, large: Heads, rows: Range<Int>, set: InstructionSet, type: KVType, kept: Bool
  ) throws -> [Float] {
    let smallCache = try Cache(small, set: set, type: type, rows: rows)
    let largeCache = try Cache(large, set: set, type: type, rows: rows)
    let backend = smallCache.backend
    let d = large.shape.headDimension
    func lenders(_ heads: Heads, _ cache: Cache) throws -> [LentHead<CPUBackend>] {
      let shape = heads.shape
      let columns = shape.queryHeads * shape.headDimension
      let query = try cache.tensor(Array(heads.query[(rows.lowerBound * columns)...]), columns)
      let logSumExp = try backend.makeTensor(rows: rows.count, columns: shape.queryHeads)
      backend.attend(
        AttentionRequest(
          query: query, shape: shape, type: type, groups: [0, 1],
          output: try backend.makeTensor(rows: rows.count, columns: columns), logSumExp: logSumExp),
        segments: [cache.segment])
      return try (0..<shape.queryHeads).map { head in
        var lender = LentHead<CPUBackend>(
          query: query, logSumExp: logSumExp, shape: shape, type: type, head: head,
          keys: [cache.segment.keys[head / shape.groupSize]])
        if kept { lender.tiles = try backend.probabilities(of: lender, segments: [cache.segment]) }
        return lender
      }
    }
    let smallLenders = try lenders(small, smallCache)
    let largeLenders = try lenders(large, largeCache)
    var loans: [Loan<CPUBackend>] = smallLenders.enumerated().map { index, lender in
      let borrowers = forms.indices.compactMap { group -> Borrower? in
        guard !forms[group].mixture[0].isEmpty else { return nil }
        let heads = (0..<3).filter { forms[group].mixture[$0][index] != 0 }
        let weights = heads.map { forms[group].mixture[$0][index] }
        return heads.isEmpty ? nil : Borrower(group: group, queryHeads: heads.map { group * 3 + $0 }, weights: weights)
      }
      return Loan(lender: lender, borrowers: borrowers)
    }
    for head in 0..<6 where forms[head / 3].sharesRows {
      loans.append(
        Loan(lender: largeLenders[head], borrowers: [Borrower(group: head / 3, queryHeads: [head], weights: [1])]))
    }
    // The cache of the layer under test: blocks instead of pages where a form has a window.
    var segment = largeCache.segment
    for (group, form) in forms.enumerated() {
      segment.keys[group] = []
      guard let window = form.window else { continue }
      func blocks() throws -> [Int: CPUBackend.Page] {
        try window.neededBlocks(for: rows).reduce(into: [:]) {
          $0[$1] = try backend.makePage(
            headDimension: d, type: type, positions: KVPageLayout.blockPositions)
        }
      }
      segment.near[group] = NearPages(window: window, keys: try blocks(), values: form.dropsValues ? try blocks() : nil)
      if form.dropsValues { segment.values[group] = [] }
    }
    var all = segment
    (all.rows, all.firstPosition) = (0..<rows.upperBound, 0)
    backend.store(try largeCache.tensor(large.key, 2 * d), as: .keys, in: [all], type: type)
    backend.store(try largeCache.tensor(large.value, 2 * d), as: .values, in: [all], type: type)
    let output = try backend.makeTensor(rows: rows.count, columns: 6 * d)
    backend.attend(
      BorrowRequest(
        loans: loans, groups: [0, 1], shape: large.shape, type: type, output: output, query: largeLenders[0].query,
        products: try backend.makeTensor(rows: rows.count, columns: d * loans.reduce(0) { $0 + $1.borrowers.count })),
      segments: [segment])
    return backend.read(output, rows: 0..<rows.count)
  }
}
