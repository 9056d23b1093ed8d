// The sums from which mixtures are solved, on the tiny pair, against their definitions.

import KindredAttention
import KindredAttentionMapping
import KindredCompute
import KindredKVStore
import KindredTransformer
import Testing

@Suite struct CandidateSumsTests {
  /// The definitions, in double, from whole maps.
  private struct Definition {
    let candidates: [[[Double]]]  // C, [R][candidates][rows · D]
    let targets: [[Double]]  // T, [R][rows · D]
  }

  private func definition(
    _ pair: TinyPair, rows: [Int], near: NearWindow?, layer: Int, group: Int, own: LentAttention<CPUBackend>,
    lent: LentAttention<CPUBackend>, values: [Float]
  ) throws -> Definition {
    let shape = pair.large.configuration.attention
    let small = pair.small.configuration
    func map(_ attention: LentAttention<CPUBackend>, _ head: HeadIndex) throws -> [[Double]] {
      let run = SequenceRows(sequence: 0, rows: 0..<60, firstPosition: 0)
      let tiles = pair.large.backend.read(try attention.rows(of: head, runs: [run]), rows: 0..<60)
      return rows.map { row in (0...row).map { Double(tiles[row * 64 + $0]) } }
    }
    func output(_ weights: [[Double]]) -> [[Double]] {
      weights.map { row in
        (0..<shape.headDimension).map { column in
          row.indices.reduce(0) { total, position in
            let value = values[(position * shape.kvHeads + group) * shape.headDimension + column]
            return total + row[position] * Double(value)
          }
        }
      }
    }
    func isFar(_ position: Int, of row: Int) -> Bool { near?.far(of: row).contains(position) ?? true }
    let lentMaps = try (0..<small.layerCount).flatMap { layer in
      try (0..<small.attention.queryHeads).map { try map(lent, HeadIndex(layer: layer, head: $0)) }
    }
    let far = lentMaps.map { map in
      zip(rows, map).map { row, weights in weights.indices.map { isFar($0, of: row) ? weights[$0] : 0 } }
    }
    var candidates: [[[Double]]] = []
    var targets: [[Double]] = []
    for head in group * shape.groupSize..<(group + 1) * shape.groupSize {
      let whole = try map(own, HeadIndex(layer: layer, head: head))
      let nearOutput = output(
        zip(rows, whole).map { row, weights in
          guard near != nil else { return weights.map { _ in 0 } }
          let kept = weights.indices.map { isFar($0, of: row) ? 0 : weights[$0] }
          let sum = kept.reduce(0, +)
          return kept.map { $0 / sum }
        })
      targets.append(zip(output(whole), nearOutput).flatMap { zip($0, $1).map { $0 - $1 } })
      candidates.append(
        far.map { map in
          zip(zip(output(map), map), nearOutput).flatMap { part, near in
            let mass = part.1.reduce(0, +)
            return zip(part.0, near).map { $0 - mass * $1 }
          }
        })
    }
    return Definition(candidates: candidates, targets: targets)
  }

  @Test(arguments: InstructionSet.available, [nil, NearWindow(positions: 9, sinks: 2), NearWindow(positions: 1)])
  func sumsAreThoseOfTheDefinitions(set: InstructionSet, near: NearWindow?) throws {
    let pair = try TinyPair(set: set)
    let own = try pair.record(pair.largeState, layers: 3)
    let lent = try pair.record(pair.smallState, layers: 2)
    try pair.small.forward(pair.batch(0..<60), state: pair.smallState, lending: lent)
    try pair.large.begin(pair.batch(0..<60), state: pair.largeState)
    var values: [[Float]] = []
    for layer in 0..<3 {
      try pair.large.run(layer..<layer + 1, of: pair.batch(0..<60), state: pair.largeState, lending: own)
      values.append(pair.large.backend.read(pair.largeState.value, rows: 0..<60))
    }
    // More rows than are held together, in two calls.
    let rows = [0, 3, 11, 12] + Array(20..<60)
    var sums = CandidateSums<CPUBackend>(
      large: pair.large.configuration, small: pair.small.configuration, near: near, backend: pair.large.backend)
    try sums.add(rows: Array(rows[..<5]), own: own, values: values, lent: lent)
    try sums.add(rows: Array(rows[5...]), own: own, values: values, lent: lent)
    func dot(_ a: [Double], _ b: [Double]) -> Double { zip(a, b).reduce(0) { $0 + $1.0 * $1.1 } }
    for layer in 0..<3 {
      for group in 0..<2 {
        let definition = try definition(
          pair, rows: rows, near: near, layer: layer, group: group, own: own, lent: lent, values: values[layer])
        let unit = sums.units[layer][group]
        for head in 0..<3 {
          let (candidates, target) = (definition.candidates[head], definition.targets[head])
          let tolerance = 1e-4 * candidates.reduce(1e-3) { max($0, dot($1, $1)) }
          #expect(abs(Double(unit.square[head]) - dot(target, target)) < tolerance)
          for a in 0..<8 {
            #expect(abs(Double(unit.cross[head][a]) - dot(candidates[a], target)) < tolerance)
            for b in 0..<8 {
              #expect(abs(Double(unit.gram[head][a * 8 + b]) - dot(candidates[a], candidates[b])) < tolerance)
            }
          }
        }
      }
    }
    var restored = CandidateSums<CPUBackend>(
      large: pair.large.configuration, small: pair.small.configuration, near: near, backend: pair.large.backend)
    let isRestored = restored.restore(sums.stored)
    #expect(isRestored)
    #expect(restored.units == sums.units)
    let isCutRestored = restored.restore(sums.stored.dropLast(4))
    #expect(!isCutRestored)
  }
}
