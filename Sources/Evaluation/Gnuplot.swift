// Figures, drawn by gnuplot where it is present.

import Foundation

/// Runs gnuplot.
public enum Gnuplot {
  /// Draws an SVG file.
  ///
  /// - Parameters:
  ///   - script: what follows the choice of terminal and output.
  ///   - size: width and height in pixels.
  ///   - path: the file; what was there is replaced.
  /// - Throws: ``FigureError`` where gnuplot is missing or fails, or the file cannot be written.
  public static func draw(_ script: String, size: (width: Int, height: Int), to path: String) throws {
    // gnuplot writes to its standard output, so that no path has to be quoted in a script.
    guard FileManager.default.createFile(atPath: path, contents: nil), let file = FileHandle(forWritingAtPath: path)
    else { throw FigureError(description: "\(path): expected a file that can be written, found none") }
    let terminal = "set terminal svg size \(size.width),\(size.height) background 'white' noenhanced\n"
    let status = try run(terminal + script, output: file)
    guard status == 0 else {
      try? FileManager.default.removeItem(atPath: path)
      throw FigureError(
        description: status == missing
          ? "\(path): expected gnuplot on the path, found none"
          : "\(path): expected gnuplot to draw it, found exit status \(status)")
    }
  }

  /// The exit status of `env` for a program that it does not find.
  private static let missing: Int32 = 127

  private static func run(_ script: String, output: FileHandle) throws -> Int32 {
    let scriptFile = FileManager.default.temporaryDirectory.appendingPathComponent("kindred-\(UUID().uuidString).gp")
    try Data(script.utf8).write(to: scriptFile)
    defer { try? FileManager.default.removeItem(at: scriptFile) }
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = ["gnuplot", scriptFile.path]
    process.standardOutput = output
    process.standardError = FileHandle.nullDevice
    try process.run()
    process.waitUntilExit()
    return process.terminationStatus
  }
}

/// Why a figure could not be drawn.
public struct FigureError: Error, Sendable, CustomStringConvertible {
  public let description: String
}
