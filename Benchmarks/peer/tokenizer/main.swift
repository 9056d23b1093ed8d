// Kindred's side of the tokenizer's comparison: `KindredTokenizerTimer MODEL TEXTFILE` encodes the file twice in one
// thread and prints, as JSON, megabytes per second of the second time and the number of tokens.

import Foundation
import KindredModelFiles
import KindredTokenization

guard CommandLine.arguments.count == 3 else {
  let found = CommandLine.arguments.dropFirst()
  FileHandle.standardError.write(Data("expected a model and a text file, found \(found)\n".utf8))
  exit(64)
}
do {
  let tokenizer = try Tokenizer(file: ModelFile(path: CommandLine.arguments[1]))
  let text = try String(contentsOfFile: CommandLine.arguments[2], encoding: .utf8)
  _ = tokenizer.encode(text)
  var tokens = 0
  let duration = ContinuousClock().measure { tokens = tokenizer.encode(text).count }
  let rate = Double(text.utf8.count) / 1e6 / (duration / .seconds(1))
  print("{\"tokenize\": \(rate), \"tokens\": \(tokens)}")
} catch {
  FileHandle.standardError.write(Data("\(error)\n".utf8))
  exit(1)
}
