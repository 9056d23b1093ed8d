// The sums from which mixtures are solved, over sampled rows of calibration text. No map is kept: the maps of a few rows
// are made, used for all units, and forgotten.
//
// Pure mapping: the output O_i of query head i is to be Σ_j w_ij F_j, where F_j = A'_j V is what small head j's rows
// make of the unit's values. With a near window F_j is taken over far positions alone, and with m_j = Σ_far A'_j and N_i
// the unit's own attention over near positions the output is (1 − Σ_j w_ij m_j) N_i + Σ_j w_ij F_j, so that O_i − N_i
// is to be Σ_j w_ij (F_j − m_j N_i). Both are linear in w: candidates C_ij = F_j − m_j N_i and targets T_i = O_i − N_i,
// with N = 0 in the first case. Since F_j serves all query heads of a unit,
//
//   ⟨C_ia, C_ib⟩ = ⟨F_a, F_b⟩ − Z_i[a, b] − Z_i[b, a],   Z_i[a, b] = Σ_t Y_ia(t) m_b(t),
//   Y_ia(t) = ⟨F_a(t), N_i(t)⟩ − ½ m_a(t) ‖N_i(t)‖²,
//
// which costs one Gram product for a unit instead of one for each query head.
//
// Checked against the definitions on a tiny pair (`CalibrationTests`).

import Foundation
import KindredAttention
import KindredCompute
import KindredKVStore
import KindredTransformer

/// Sums for every unit of a large model.
package struct CandidateSums<B: Backend> {
  /// `[layer][KV head]`.
  package private(set) var units: [[UnitSums]]

  private let backend: B
  private let near: NearWindow?
  private let large: AttentionShape
  private let small: AttentionShape
  private let smallLayers: Int
  private var candidates: Int { smallLayers * small.queryHeads }

  /// Rows whose maps are held together.
  private static var blockRows: Int { 32 }
  /// Layers whose values meet the rows in one product.
  private static var layersAtOnce: Int { 4 }

  /// - Parameters:
  ///   - large: the model that borrows.
  ///   - small: the model that lends.
  ///   - near: the window of own keys; `nil` for pure mapping.
  package init(large: DecoderConfiguration, small: DecoderConfiguration, near: NearWindow?, backend: B) {
    self.backend = backend
    self.near = near
    self.large = large.attention
    self.small = small.attention
    smallLayers = small.layerCount
    let candidates = small.layerCount * small.attention.queryHeads
    let unit = UnitSums(candidates: candidates, queryHeads: large.attention.groupSize)
    units = Array(repeating: Array(repeating: unit, count: large.attention.kvHeads), count: large.layerCount)
  }

  /// The sums of an interrupted run, as ``stored`` left them; `false` where the bytes are not those of such sums.
  package mutating func restore(_ stored: Data) -> Bool {
    let headValues = candidates * candidates + candidates + 1
    let heads = units.count * large.kvHeads * large.groupSize
    guard stored.count == heads * headValues * MemoryLayout<Float>.stride else { return false }
    var values = stored.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }[...]
    guard values.allSatisfy(\.isFinite) else { return false }
    for layer in units.indices {
      for group in units[layer].indices {
        for head in 0..<large.groupSize {
          let part = Array(values.prefix(headValues))
          values = values.dropFirst(headValues)
          units[layer][group].gram[head] = Array(part[..<(candidates * candidates)])
          units[layer][group].cross[head] = Array(part[(candidates * candidates)..<(headValues - 1)])
          units[layer][group].square[head] = part[headValues - 1]
        }
      }
    }
    return true
  }

  /// The sums as bytes.
  package var stored: Data {
    var data = Data()
    for unit in units.joined() {
      for head in 0..<large.groupSize {
        for part in [unit.gram[head], unit.cross[head], [unit.square[head]]] {
          part.withUnsafeBytes { data.append(contentsOf: $0) }
        }
      }
    }
    return data
  }

  /// Adds some rows of a window.
  ///
  /// - Parameters:
  ///   - positions: of the rows, ascending.
  ///   - own: the large model's attention over the window, all layers recorded.
  ///   - values: by layer the large model's values, `[window, G · D]`.
  ///   - lent: the small model's attention over the window, all layers recorded.
  package mutating func add(
    rows positions: [Int], own: LentAttention<B>, values: [[Float]], lent: LentAttention<B>
  ) throws(ComputeError) {
    for start in stride(from: 0, to: positions.count, by: Self.blockRows) {
      let block = Array(positions[start..<min(start + Self.blockRows, positions.count)])
      let borrowed = try borrowedRows(block, of: lent)
      for first in stride(from: 0, to: units.count, by: Self.layersAtOnce) {
        let layers = first..<min(first + Self.layersAtOnce, units.count)
        try add(borrowed, layers: layers, own: own, values: values)
      }
    }
  }

  /// Rows of all small heads at some positions.
  private struct BorrowedRows {
    let positions: [Int]
    /// Positions in a row: those of the last one, rounded up to whole pages.
    let width: Int
    /// `[candidates · rows, width]`.
    let rows: B.Activations
    /// What each row sums to, `[candidates, rows]`; empty for pure mapping.
    let masses: [Float]
    /// The masses as a matrix, `[candidates, rows]`.
    let massMatrix: RowMatrix?
  }

  private func borrowedRows(_ positions: [Int], of lent: LentAttention<B>) throws(ComputeError) -> BorrowedRows {
    let width = Self.width(of: positions)
    let count = candidates
    var rows: [Float] = []
    rows.reserveCapacity(count * positions.count * width)
    var masses: [Float] = []
    for layer in 0..<smallLayers {
      for head in 0..<small.queryHeads {
        let map = try Self.maps(lent, HeadIndex(layer: layer, head: head), positions, width: width, backend: backend)
        guard let near else {
          rows += map
          continue
        }
        for (index, position) in positions.enumerated() {
          let far = near.far(of: position)
          let row = map[(index * width)..<((index + 1) * width)]
          let start = row.startIndex
          let part = row[(start + far.lowerBound)..<(start + far.upperBound)]
          rows.append(contentsOf: repeatElement(0, count: far.lowerBound))
          rows += part
          rows.append(contentsOf: repeatElement(0, count: width - far.upperBound))
          masses.append(part.reduce(0, +))
        }
      }
    }
    return BorrowedRows(
      positions: positions, width: width, rows: try activations(rows, columns: width), masses: masses,
      massMatrix: near == nil ? nil : try matrix(masses, columns: positions.count))
  }

  /// One head's post-softmax rows at some positions, `[positions, width]`, 0 after each row's own position.
  private static func maps(
    _ attention: LentAttention<B>, _ head: HeadIndex, _ positions: [Int], width: Int, backend: B
  ) throws(ComputeError) -> [Float] {
    let runs = positions.map { SequenceRows(sequence: 0, rows: $0..<$0 + 1, firstPosition: $0) }
    // Runs of one row lie page after page, so each is a row of the map.
    let pages = positions.map { KVPageLayout.pageCount(length: $0 + 1) }
    let tiles = backend.read(try attention.rows(of: head, runs: runs), rows: 0..<pages.reduce(0, +))
    var rows: [Float] = []
    rows.reserveCapacity(positions.count * width)
    var start = 0
    for count in pages {
      let end = start + count * KVPageLayout.positions
      rows += tiles[start..<end]
      rows.append(contentsOf: repeatElement(0, count: width - (end - start)))
      start = end
    }
    return rows
  }

  private static func width(of positions: [Int]) -> Int {
    KVPageLayout.pageCount(length: (positions.last ?? 0) + 1) * KVPageLayout.positions
  }

  /// Adds a block of rows to the units of some layers.
  private mutating func add(
    _ borrowed: BorrowedRows, layers: Range<Int>, own: LentAttention<B>, values: [[Float]]
  ) throws(ComputeError) {
    let dimension = large.headDimension
    let columns = large.kvHeads * dimension
    let rowCount = borrowed.positions.count
    // What small rows make of the values of all these layers, [candidates, rows, layers · G · D].
    let products = try multiply(
      borrowed.rows, rows: candidates * rowCount,
      by: try matrix(layers.flatMap { transposed(values[$0], width: borrowed.width) }, columns: borrowed.width))
    for (index, layer) in layers.enumerated() {
      let outputs = try ownOutputs(layer, borrowed, own: own, values: values[layer])
      for group in 0..<large.kvHeads {
        let column = index * columns + group * dimension
        let products = slice(products, width: layers.count * columns, columns: column..<column + dimension)
        try add(products, outputs[group], borrowed, to: &units[layer][group])
      }
    }
  }

  /// A unit's own outputs at some rows: of all positions O and of near ones N (0 for pure mapping), each
  /// `[R, rows, D]`.
  private typealias OwnOutputs = (all: [Float], near: [Float])

  /// The own outputs of each KV head of a layer.
  private func ownOutputs(
    _ layer: Int, _ borrowed: BorrowedRows, own: LentAttention<B>, values: [Float]
  ) throws(ComputeError) -> [OwnOutputs] {
    let positions = borrowed.positions
    var rows: [Float] = []
    var nearRows: [Float] = []
    for head in 0..<large.queryHeads {
      var map = try Self.maps(
        own, HeadIndex(layer: layer, head: head), positions, width: borrowed.width, backend: backend)
      rows += map
      guard let near else { continue }
      for (index, position) in positions.enumerated() {
        let row = index * borrowed.width
        for far in near.far(of: position) { map[row + far] = 0 }
        let sum = map[row..<(row + borrowed.width)].reduce(0, +)
        for column in row..<row + borrowed.width { map[column] /= sum }
      }
      nearRows += map
    }
    let matrix = try matrix(transposed(values, width: borrowed.width), columns: borrowed.width)
    let columns = large.kvHeads * large.headDimension
    let rowCount = large.queryHeads * positions.count
    func outputs(_ rows: [Float]) throws(ComputeError) -> [Float] {
      if rows.isEmpty { return Array(repeating: 0, count: rowCount * columns) }
      return try multiply(try activations(rows, columns: borrowed.width), rows: rowCount, by: matrix)
    }
    let (all, nearOutputs) = (try outputs(rows), try outputs(nearRows))
    let groupValues = large.groupSize * positions.count * columns
    return (0..<large.kvHeads).map { group in
      let part = group * groupValues..<(group + 1) * groupValues
      let slice = { (outputs: [Float]) in
        self.slice(
          Array(outputs[part]), width: columns,
          columns: group * large.headDimension..<(group + 1) * large.headDimension)
      }
      return (slice(all), slice(nearOutputs))
    }
  }

  /// Adds a block of rows to one unit.
  ///
  /// - Parameters:
  ///   - products: F, `[candidates, rows, D]`.
  ///   - outputs: O and N.
  private func add(
    _ products: [Float], _ outputs: OwnOutputs, _ borrowed: BorrowedRows, to unit: inout UnitSums
  ) throws(ComputeError) {
    let rowCount = borrowed.positions.count
    let dimension = large.headDimension
    let heads = large.groupSize
    let span = rowCount * dimension
    // ⟨F_a, F_b⟩
    let gram = try multiply(
      try activations(products, columns: span), rows: candidates, by: try matrix(products, columns: span))
    let targets = zip(outputs.all, outputs.near).map { $0 - $1 }
    // Y, [R, candidates, rows]
    var shared = [Float](repeating: 0, count: near == nil ? 0 : heads * candidates * rowCount)
    for head in 0..<heads {
      let part = head * span..<(head + 1) * span
      let target = Array(targets[part])
      let nearOutput = Array(outputs.near[part])
      unit.square[head] += dot(target, 0, target, 0, count: span)
      // ⟨N_i(t), T_i(t)⟩ and ½ ‖N_i(t)‖²
      let nearTarget = (0..<rowCount).map { dot(nearOutput, $0 * dimension, target, $0 * dimension, count: dimension) }
      let nearHalf = (0..<rowCount).map {
        0.5 * dot(nearOutput, $0 * dimension, nearOutput, $0 * dimension, count: dimension)
      }
      for candidate in 0..<candidates {
        unit.cross[head][candidate] += dot(products, candidate * span, target, 0, count: span)
        guard near != nil else { continue }
        for row in 0..<rowCount {
          let mass = borrowed.masses[candidate * rowCount + row]
          unit.cross[head][candidate] -= mass * nearTarget[row]
          shared[(head * candidates + candidate) * rowCount + row] =
            dot(products, candidate * span + row * dimension, nearOutput, row * dimension, count: dimension)
            - mass * nearHalf[row]
        }
      }
    }
    let crossed: [Float] =
      if let masses = borrowed.massMatrix {
        try multiply(try activations(shared, columns: rowCount), rows: heads * candidates, by: masses)
      } else { [] }
    for head in 0..<heads {
      accumulate(gram, crossed: crossed, from: head * candidates * candidates, into: &unit.gram[head])
    }
  }

  /// total += gram − Z − Zᵀ, where Z is the part of `crossed` from `start` on, if there is any.
  private func accumulate(_ gram: [Float], crossed: [Float], from start: Int, into total: inout [Float]) {
    let count = candidates
    total.withUnsafeMutableBufferPointer { total in
      gram.withUnsafeBufferPointer { gram in
        for index in total.indices { total[index] += gram[index] }
      }
      guard !crossed.isEmpty else { return }
      crossed.withUnsafeBufferPointer { crossed in
        for row in 0..<count {
          for column in 0..<count {
            total[row * count + column] -= crossed[start + row * count + column] + crossed[start + column * count + row]
          }
        }
      }
    }
  }

  // MARK: Products

  private struct RowMatrix {
    let rows: Int
    let matrix: B.Matrix
  }

  /// The values of the first `width` positions as rows of a matrix, `[G · D, width]`, 0 past the window.
  private func transposed(_ values: [Float], width: Int) -> [Float] {
    let columns = large.kvHeads * large.headDimension
    let count = min(width, values.count / columns)
    var result = [Float](repeating: 0, count: columns * width)
    for position in 0..<count {
      for column in 0..<columns { result[column * width + position] = values[position * columns + column] }
    }
    return result
  }

  /// Some columns of each row.
  private func slice(_ values: [Float], width: Int, columns: Range<Int>) -> [Float] {
    var result: [Float] = []
    result.reserveCapacity(values.count / width * columns.count)
    for start in stride(from: 0, to: values.count, by: width) {
      result += values[(start + columns.lowerBound)..<(start + columns.upperBound)]
    }
    return result
  }

  private func activations(_ values: [Float], columns: Int) throws(ComputeError) -> B.Activations {
    let rows = values.count / columns
    let tensor = try backend.makeTensor(rows: rows, columns: columns)
    let prepared = try backend.makeActivations(rows: rows, columns: columns)
    backend.write(values, to: tensor)
    backend.prepare(tensor, rows: rows, into: prepared)
    return prepared
  }

  private func matrix(_ values: [Float], columns: Int) throws(ComputeError) -> RowMatrix {
    var result: Result<RowMatrix, ComputeError>?
    values.withUnsafeBytes { bytes in
      result = Result { () throws(ComputeError) in
        let rows = values.count / columns
        return RowMatrix(
          rows: rows, matrix: try backend.makeMatrix(type: .f32, rows: rows, columns: columns, bytes: bytes))
      }
    }
    guard let result else { preconditionFailure("the closure runs once") }
    return try result.get()
  }

  /// rows · matrixᵀ, `[rows, matrix rows]`.
  private func multiply(
    _ input: B.Activations, rows: Int, by matrix: RowMatrix
  ) throws(ComputeError) -> [Float] {
    let output = try backend.makeTensor(rows: rows, columns: matrix.rows)
    backend.multiply(input, rows: rows, [Product(matrix.matrix, into: output)])
    return backend.read(output, rows: 0..<rows)
  }
}

/// Σ a[i] b[i] over parts of two arrays.
private func dot(_ a: [Float], _ aStart: Int, _ b: [Float], _ bStart: Int, count: Int) -> Float {
  precondition(aStart + count <= a.count && bStart + count <= b.count)
  return a.withUnsafeBytes { a in
    b.withUnsafeBytes { b in
      var sums = SIMD16<Float>.zero
      var index = 0
      while index + 16 <= count {
        let x = a.loadUnaligned(fromByteOffset: (aStart + index) * 4, as: SIMD16<Float>.self)
        let y = b.loadUnaligned(fromByteOffset: (bStart + index) * 4, as: SIMD16<Float>.self)
        sums += x * y
        index += 16
      }
      var sum = sums.sum()
      while index < count {
        sum +=
          a.load(fromByteOffset: (aStart + index) * 4, as: Float.self)
          * b.load(fromByteOffset: (bStart + index) * 4, as: Float.self)
        index += 1
      }
      return sum
    }
  }
}
