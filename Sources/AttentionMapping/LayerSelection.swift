// Which layers of the large model borrow (IAM §3.3, arXiv 2507.11953).

import Foundation

/// The choice of mapped layers.
public enum LayerSelection: Sendable, Hashable {
  /// `round(ratio · L)` layers from the last one backwards: what the paper does for Llama 3.
  case back(ratio: Double)
  /// The layers themselves.
  case explicit([Int])

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

  /// The mapped layers, ascending, of a model with `layerCount` layers.
  public func layers(of layerCount: Int) throws(SelectionError) -> [Int] {
    switch self {
    case .back(let ratio):
      guard (0...1).contains(ratio) else { throw .ratio(ratio) }
      return Array(layerCount - Int((ratio * Double(layerCount)).rounded())..<layerCount)
    case .explicit(let layers):
      if let wrong = layers.first(where: { $0 < 0 || $0 >= layerCount }) {
        throw .layer(wrong, layerCount: layerCount)
      }
      return Set(layers).sorted()
    }
  }
}
