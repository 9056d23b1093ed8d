// Own keys at the nearest positions only: the first few (attention sinks, StreamingLLM, arXiv 2309.17453) and the
// newest. What attention is at the positions between is for the far source to say.

/// The positions at which a unit has keys of its own.
public struct NearWindow: Sendable, Hashable {
  /// The newest positions, a row's own among them, `w`; at least 1.
  public var positions: Int
  /// The first positions of a sequence, `s`.
  public var sinks: Int

  /// - Parameters:
  ///   - positions: at least 1; `AttentionPlan.validate` refuses others.
  ///   - sinks: at least 0.
  public init(positions: Int, sinks: Int = 0) {
    self.positions = positions
    self.sinks = sinks
  }

  /// The far positions of the row at `position`: between the sinks and the newest. Empty where the row sees at most
  /// `s + w` positions.
  public func far(of position: Int) -> Range<Int> {
    sinks..<max(sinks, position + 1 - positions)
  }

  /// The blocks (``KVPageLayout/blockPositions``) that hold the near positions of the rows at `rows`: those of the
  /// sinks, and the newest. The two overlap at the start of a sequence.
  func blocks(of rows: Range<Int>) -> (sinks: Range<Int>, newest: Range<Int>) {
    let block = KVPageLayout.blockPositions
    let end = (rows.upperBound + block - 1) / block
    return (
      0..<min((sinks + block - 1) / block, end), min(max(0, rows.lowerBound + 1 - positions) / block, end)..<end
    )
  }

  /// Whether a block holds a near position of the rows at `rows`.
  package func needs(_ block: Int, for rows: Range<Int>) -> Bool {
    let (sinks, newest) = blocks(of: rows)
    return sinks.contains(block) || newest.contains(block)
  }

  /// The blocks of ``needs(_:for:)``, ascending.
  package func neededBlocks(for rows: Range<Int>) -> [Int] {
    let (sinks, newest) = blocks(of: rows)
    return Array(sinks) + newest.filter { !sinks.contains($0) }
  }
}

/// What a unit with a near window stores: keys at near positions, in blocks at fixed borders, and values there only or
/// everywhere.
public struct NearPages<Page> {
  /// The positions that are near.
  public var window: NearWindow
  /// Keys by block.
  public var keys: [Int: Page]
  /// Values by block; `nil` where values are stored at every position, in pages.
  public var values: [Int: Page]?

  public init(window: NearWindow, keys: [Int: Page], values: [Int: Page]?) {
    self.window = window
    self.keys = keys
    self.values = values
  }
}
