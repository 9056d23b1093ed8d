// Which layers of the large model borrow (IAM §3.3, arXiv 2507.11953).

import Foundation

/// The order in which layers are chosen.
public enum LayerStrategy: String, Sendable, Hashable, CaseIterable, Codable {
  /// From the last layer backwards: what the paper does for Llama 3.
  case back
  /// From the first layer on.
  case front
  /// The layers whose heads have, on the mean, the most alike small heads on the tokens that establish the map.
  case mostSimilar = "most-similar"
  /// The last fifth of the layers backwards, then from a fifth of the depth backwards to the first layer: one reading
  /// of what the paper does for Qwen2-72B ("79 to 64, then from layer 16 on"). The layers between, backwards, come
  /// last.
  case regionsDown = "regions-down"
  /// The last fifth of the layers backwards, then from a fifth of the depth upwards: the other reading. The first
  /// fifth, backwards, comes last.
  case regionsUp = "regions-up"

  /// All layers, the first one to be mapped first; `nil` where only attention tells.
  ///
  /// - Parameter layerCount: layers of the large model.
  public func order(layerCount: Int) -> [Int]? {
    let late = Int((0.8 * Double(layerCount)).rounded())
    let early = min(late, Int((0.2 * Double(layerCount)).rounded()))
    let backwards = { (layers: Range<Int>) in Array(layers.reversed()) }
    switch self {
    case .back: return backwards(0..<layerCount)
    case .front: return Array(0..<layerCount)
    case .mostSimilar: return nil
    case .regionsDown:
      let middle = min(late, early + 1)
      return backwards(late..<layerCount) + backwards(0..<middle) + backwards(middle..<late)
    case .regionsUp: return backwards(late..<layerCount) + Array(early..<late) + backwards(0..<early)
    }
  }
}

/// The choice of mapped layers.
public enum LayerSelection: Sendable, Hashable {
  /// `round(ratio · L)` layers, the first ones in the strategy's order.
  case share(LayerStrategy, ratio: Double)
  /// The layers themselves.
  case explicit([Int])

  /// `round(ratio · L)` layers from the last one backwards.
  public static func back(ratio: Double) -> LayerSelection { .share(.back, ratio: ratio) }

  /// What is wrong with a selection.
  public enum SelectionError: Error, Sendable, Hashable, CustomStringConvertible {
    case ratio(Double)
    case layer(Int, layerCount: Int)
    case syntax(String)

    public var description: String {
      switch self {
      case .ratio(let ratio): "ratio: expected a number from 0 to 1, found \(ratio)"
      case .layer(let layer, let count): "mapped layers: expected layers from 0 to \(count - 1), found \(layer)"
      case .syntax(let text): "mapped layers: expected a list such as 4-11,20, found \"\(text)\""
      }
    }
  }

  /// Reads a list such as `4-11,20`.
  public init(list: String) throws(SelectionError) {
    var layers = Set<Int>()
    for part in list.split(separator: ",", omittingEmptySubsequences: false) {
      let bounds = part.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
      guard let first = bounds[0], let last = bounds[bounds.count - 1], bounds.count <= 2, first <= last,
        last < 1 << 16
      else { throw .syntax(list) }
      layers.formUnion(first...last)
    }
    self = .explicit(layers.sorted())
  }

  /// How many layers are mapped of a model with `layerCount` layers.
  public func count(of layerCount: Int) throws(SelectionError) -> Int {
    switch self {
    case .share(_, let ratio):
      guard (0...1).contains(ratio) else { throw .ratio(ratio) }
      return Int((ratio * Double(layerCount)).rounded())
    case .explicit(let layers):
      if let wrong = layers.first(where: { $0 < 0 || $0 >= layerCount }) {
        throw .layer(wrong, layerCount: layerCount)
      }
      return Set(layers).count
    }
  }

  /// The mapped layers, ascending, of a model with `layerCount` layers; `nil` where only attention tells.
  public func layers(of layerCount: Int) throws(SelectionError) -> [Int]? {
    let count = try count(of: layerCount)
    switch self {
    case .share(let strategy, _): return strategy.order(layerCount: layerCount).map { $0.prefix(count).sorted() }
    case .explicit(let layers): return Set(layers).sorted()
    }
  }

  /// The mapped layers, ascending, of a model whose layers are ranked by how alike their heads are to small ones.
  ///
  /// - Parameter ranking: all layers, the most alike first.
  func layers(ranking: [Int]) throws(SelectionError) -> [Int] {
    if let layers = try layers(of: ranking.count) { return layers }
    return try ranking.prefix(count(of: ranking.count)).sorted()
  }
}
