// `kindred chat` in a process of its own: what ends it.

import Foundation
import Testing

@Suite(.enabled(if: FileManager.default.isExecutableFile(atPath: tool.path), "the tool is not built"))
struct ChatCommandTests {
  static let model: String? = {
    let environment = ProcessInfo.processInfo.environment
    let home = environment["KINDRED_HOME"] ?? NSHomeDirectory() + "/.cache/kindred"
    let folder = home + "/models/smollm2-135m"
    let files = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
    return files.first { $0.hasSuffix(".gguf") }.map { "\(folder)/\($0)" }
  }()

  /// While there is an answer, signals end the answer; after it they end the conversation again.
  @Test(.enabled(if: model != nil, "needs `kindred fetch smollm2-135m`"), arguments: [SIGINT, SIGTERM])
  func signalsEndTheConversationAfterAnAnswer(number: Int32) throws {
    let process = Process()
    process.executableURL = tool
    process.arguments = ["chat", "-m", try #require(Self.model), "-n", "3", "--threads", "1"]
    let (input, output, errors) = (Pipe(), Pipe(), Pipe())
    (process.standardInput, process.standardOutput, process.standardError) = (input, output, errors)
    try process.run()
    try input.fileHandleForWriting.write(contentsOf: Data("hi\n".utf8))
    // The figures come last.
    var text = ""
    while !text.contains("KV cache") {
      let more = errors.fileHandleForReading.availableData
      try #require(!more.isEmpty, "\(text)")
      text += String(decoding: more, as: UTF8.self)
    }
    // By then the answer's handler is gone: it would end the answer at the first signal and the process at the second.
    usleep(500_000)
    for _ in 0..<100 where process.isRunning {
      kill(process.processIdentifier, number)
      usleep(100_000)
    }
    let hasEnded = !process.isRunning
    if !hasEnded { kill(process.processIdentifier, SIGKILL) }
    process.waitUntilExit()
    #expect(hasEnded && process.terminationReason == .uncaughtSignal && process.terminationStatus == number)
  }
}
