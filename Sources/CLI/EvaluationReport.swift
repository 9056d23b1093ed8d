// What evaluations print for people: methods in rows, scores with their intervals in columns.

import Foundation
import Kindred
import KindredEvaluation

/// Groups of one kind up to which they are printed; the others are in the JSON.
private let mostGroups = 12

/// Prints scores, differences and groups.
func printTable(of result: EvaluationResult) {
  let skipped = result.skippedItems > 0 ? ", \(result.skippedItems) left out that could not be read" : ""
  print("\(result.task): \(result.items) items\(skipped); 95% intervals\n")
  let metrics = Set(result.methods.flatMap(\.scores.keys)).sorted()
  var rows = [["method"] + metrics + ["KV cache", "unmapped", "s"]]
  for method in result.methods {
    let scores = metrics.map { method.scores[$0]?.shown ?? "" }
    let sizes = [byteText(method.kvBytes), byteText(method.unmappedKVBytes)]
    rows.append([method.method] + scores + sizes + ["\(Int(method.seconds))"])
  }
  printColumns(rows, rightAligned: Set(1...metrics.count + 3))
  let compared = result.methods.filter { !$0.differences.isEmpty }
  if !compared.isEmpty {
    print("\nless unmapped, item by item")
    let columns = metrics.filter { metric in compared.contains { $0.differences[metric] != nil } }
    var rows = [["method"] + columns]
    for method in compared { rows.append([method.method] + columns.map { method.differences[$0]?.shown ?? "" }) }
    printColumns(rows, rightAligned: Set(1...max(1, columns.count)))
  }
  printGroups(of: result, metrics: metrics)
  for method in result.methods {
    for note in method.notes ?? [] { print("\n\(method.method): \(note)") }
  }
}

/// Prints the groups of each kind that has few.
private func printGroups(of result: EvaluationResult, metrics: [String]) {
  let groups = Set(result.methods.flatMap(\.groups.keys)).sorted()
  let kinds = Dictionary(grouping: groups) { $0.split(separator: "/").first.map(String.init) ?? "" }
  for (kind, members) in kinds.sorted(by: { $0.key < $1.key }) {
    guard members.count <= mostGroups else {
      print("\n\(members.count) groups of \(kind): see the JSON")
      continue
    }
    print("\n\(kind)")
    for metric in metrics where result.methods.contains(where: { $0.groups[members[0]]?[metric] != nil }) {
      var rows = [[metric] + result.methods.map(\.method)]
      for group in members {
        let name = String(group.dropFirst(kind.count + 1))
        rows.append([name] + result.methods.map { $0.groups[group]?[metric]?.shown ?? "" })
      }
      printColumns(rows, rightAligned: Set(1...max(1, result.methods.count)))
    }
  }
}

extension Estimate {
  /// Value and interval.
  fileprivate var shown: String { "\(value.significant) [\(low.significant), \(high.significant)]" }
}

extension Double {
  /// Four decimals, fewer where the number is large.
  fileprivate var significant: String { formatted(digits: abs(self) < 10 ? 4 : abs(self) < 1000 ? 2 : 0) }
}
