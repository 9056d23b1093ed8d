// `kindred inspect`: what a model file, or a plan, says it holds, without loading it.

import ArgumentParser
import Foundation
import KindredAttentionMapping
import KindredModelFiles
import KindredModelStore

struct InspectCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "inspect",
    abstract: "Shows a model file's metadata, tensors and bytes, or a plan.",
    discussion: "Reads GGUF files, safetensors files, Hugging Face folders, and the .json files of plans.")

  @Argument(
    help: "A .gguf or .safetensors file, a folder with config.json, a model from the store, or a plan's .json file.")
  var file: String

  @Option(
    help: ArgumentHelp("Draw which small layers a plan's units borrow from, by gnuplot.", valueName: "file.svg"))
  var figure: String?

  @Flag(help: "Print one JSON object instead of tables.")
  var json = false

  func run() throws {
    if file.hasSuffix(".json") {
      let plan = try PlanFile(path: file)
      if let figure { try PlanHeatMap(plan).draw(to: figure) }
      return try json ? printJSON(plan) : plan.printTables(name: file)
    }
    if figure != nil { throw ValidationError("--figure: expected a plan's .json file, found \(file)") }
    let path = try ModelStore().locate(file)
    let inspection = Inspection(of: try ModelFile(path: path), path: path)
    if json { return try printJSON(inspection) }
    inspection.printTables()
  }
}

/// What `kindred inspect` shows.
private struct Inspection: Encodable {
  struct Tensor: Encodable {
    let name: String
    let type: String
    /// Outermost dimension first.
    let shape: [Int]
    let bytes: Int
  }

  /// What the tensors of one type amount to.
  struct Total: Encodable {
    let type: String
    var tensors = 0
    var elements = 0
    var bytes = 0
  }

  let file: String
  let format: String
  /// Bytes in the file, or in all weight files of a folder.
  let bytes: Int
  let metadata: [String: JSONValue]
  let tensors: [Tensor]
  let totals: [Total]

  init(of model: ModelFile, path: String) {
    let stored: [StoredTensor]
    switch model {
    case .gguf(let gguf):
      format = "GGUF v\(gguf.version)"
      metadata = gguf.metadata.mapValues(\.abbreviated)
      (bytes, stored) = (gguf.byteCount, gguf.tensors)
    case .safetensors(let safetensors):
      format = "safetensors"
      metadata = safetensors.metadata.mapValues { .string($0) }
      (bytes, stored) = (safetensors.byteCount, safetensors.tensors)
    case .huggingFace(let folder):
      format = "Hugging Face folder of \(folder.weights.count) safetensors"
      metadata = ["config": folder.config.value]
        .merging(folder.generationConfig.map { ["generation_config": $0.value] } ?? [:]) { $1 }
      (bytes, stored) = (folder.byteCount, folder.tensors)
    }
    file = path
    tensors = stored.map { Tensor(name: $0.name, type: $0.typeName, shape: $0.shape, bytes: $0.extent.count) }
    totals = Self.totals(of: tensors)
  }

  private static func totals(of tensors: [Tensor]) -> [Total] {
    var totals: [String: Total] = [:]
    for tensor in tensors {
      var total = totals[tensor.type] ?? Total(type: tensor.type)
      total.tensors += 1
      total.elements += tensor.shape.reduce(1, *)
      total.bytes += tensor.bytes
      totals[tensor.type] = total
    }
    return totals.values.sorted { ($0.bytes, $0.type) > ($1.bytes, $1.type) }
  }

  func printTables() {
    print("\(file.onOneLine()): \(format), \(bytes.grouped) bytes")

    print("\nMetadata (\(metadata.count))")
    printColumns(metadata.sorted { $0.key < $1.key }.map { [$0.key.onOneLine(), $0.value.shown] })

    print("\nTensors (\(tensors.count))")
    printColumns(
      tensors.map { [$0.name.onOneLine(), $0.type.onOneLine(), "\($0.shape)", $0.bytes.grouped] },
      rightAligned: [3])

    print("\nTotals")
    let sum = [
      "all", "\(tensors.count)", totals.reduce(0) { $0 + $1.elements }.grouped,
      totals.reduce(0) { $0 + $1.bytes }.grouped,
    ]
    let rows = totals.map { [$0.type.onOneLine(), "\($0.tensors)", $0.elements.grouped, $0.bytes.grouped] }
    printColumns([["type", "tensors", "elements", "bytes"]] + rows + [sum], rightAligned: [1, 2, 3])
  }
}

extension Int {
  /// This number with a comma between thousands.
  fileprivate var grouped: String {
    var digits = String(magnitude)
    var groups: [Substring] = []
    while digits.count > 3 {
      groups.insert(digits.suffix(3), at: 0)
      digits.removeLast(3)
    }
    return (self < 0 ? "-" : "") + ([Substring(digits)] + groups).joined(separator: ",")
  }
}

extension GGUFValue {
  /// The value as JSON; of a long array its count and its first elements.
  fileprivate var abbreviated: JSONValue {
    switch self {
    case .unsigned(let value): Int(exactly: value).map { .integer($0) } ?? .number(Double(value))
    case .signed(let value): .integer(Int(value))
    // JSON has no infinities. The shortest decimal of a 32-bit value is not that of the value widened to 64.
    case .float(let value): value.isFinite ? .number(Double(description) ?? value) : .string(description)
    case .bool(let value): .bool(value)
    case .string(let value): .string(value)
    case .strings(let values): Self.abbreviated(values) { .string(String(decoding: $0, as: UTF8.self)) }
    case .numbers(let values): Self.abbreviated(values, \.abbreviated)
    case .arrays(let values): Self.abbreviated(values, \.abbreviated)
    }
  }

  private static func abbreviated<Elements: Collection>(
    _ elements: Elements, _ convert: (Elements.Element) -> JSONValue
  ) -> JSONValue {
    let first = JSONValue.array(elements.prefix(8).map(convert))
    return elements.count <= 8 ? first : .object(["count": .integer(elements.count), "first": first])
  }
}

extension JSONValue {
  /// The value on one line, cut where it is long.
  fileprivate var shown: String {
    switch self {
    case .array(let elements): "[\(elements.map(\.shown).joined(separator: ", "))]".onOneLine(limit: 120)
    case .object(let object):
      "{\(object.map { "\($0.key): \($0.value.shown)" }.joined(separator: ", "))}".onOneLine(limit: 1_000)
    default: description
    }
  }
}
