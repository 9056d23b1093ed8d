// What the tests of tasks share: folders of data, and answers.

import Foundation
import KindredEvaluation

/// A folder of data files that goes with it.
final class DataFolder {
  let url: URL
  var path: String { url.path }

  /// - Parameter files: texts by path in the folder.
  init(_ files: [String: String] = [:]) throws {
    url = FileManager.default.temporaryDirectory.appendingPathComponent("kindred-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    for (name, text) in files { try write(name, Data(text.utf8)) }
  }

  deinit { try? FileManager.default.removeItem(at: url) }

  @discardableResult
  func write(_ name: String, _ data: Data) throws -> String {
    let file = url.appendingPathComponent(name)
    try FileManager.default.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
    try data.write(to: file)
    return file.path
  }

  func callAsFunction(_ name: String) -> String { url.appendingPathComponent(name).path }
}

/// The evaluation data beside the project.
let sharedData = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
  .appendingPathComponent("../../../../shared/data").standardizedFileURL.path

let hasSharedData = FileManager.default.fileExists(atPath: sharedData)

extension TaskItem {
  var prompt: String {
    switch request {
    case .choose(let prompt, _), .generate(let prompt, _, _): prompt
    case .compare(let first, _): first
    }
  }
}

/// What `body` throws, as text.
func problem(_ body: () throws -> some Any) -> String? {
  do {
    _ = try body()
    return nil
  } catch { return "\(error)" }
}
