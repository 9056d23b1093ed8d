// Runs Python programs that a language model wrote, held by `CKindredSandbox`.

import CKindredSandbox
import Foundation

/// A Python interpreter for programs that nobody vouches for.
///
/// A program is one process without network: it reads files, and computes, and that is all. Its processor time, its
/// memory and the time that passes are limited, its output goes nowhere, and it ends with this process.
public struct PythonSandbox: Sendable {
  /// What a program may use.
  public struct Limits: Sendable, Hashable {
    /// Seconds of processor time.
    public var processorSeconds = 3
    /// Seconds that pass, for programs that wait.
    public var seconds = 10.0
    /// Bytes of address space.
    public var memoryBytes = 1 << 30

    public init() {}
  }

  /// What a program may use.
  public let limits: Limits
  /// The interpreter.
  public let python: String
  private let isIsolated: Bool

  /// Finds `python3` on the path, and makes sure that programs are held indeed.
  ///
  /// - Parameters:
  ///   - limits: what a program may use.
  ///   - allowsUnisolated: where this system cannot hold programs, runs them all the same, under the limits alone.
  /// - Throws: `PythonSandboxError`, and nothing is ever run.
  public init(limits: Limits = Limits(), allowsUnisolated: Bool = false) throws(PythonSandboxError) {
    // The python3 of the path may be a script, which the sandbox would not let start the interpreter.
    let finder = Child(
      path: "/usr/bin/env", arguments: ["python3", "-c", "import os, sys; os.write(3, sys.executable.encode())"],
      environment: ProcessInfo.processInfo.environment)
    var finding = Limits()
    finding.processorSeconds = 20
    let found = try finder.run(input: "", limits: finding, isIsolated: false)
    guard found.hasPrefix("/") else { throw .noPython }
    python = found
    self.limits = limits
    do {
      try Self.probe(found, limits)
      isIsolated = true
    } catch {
      guard allowsUnisolated else { throw error }
      isIsolated = false
    }
  }

  /// Whether `program` ran to its end without an exception, within the limits.
  ///
  /// Waits for the program, and leaves nothing of it behind.
  public func passes(_ program: String) throws(PythonSandboxError) -> Bool {
    let verdict = try Self.child(python).run(input: program, limits: limits, isIsolated: isIsolated)
    if verdict.hasPrefix(Self.failure) { throw .notIsolated(String(verdict.dropFirst(Self.failure.count))) }
    return verdict == Self.passed
  }

  fileprivate static let passed = "passed"
  fileprivate static let failure = "isolation: "

  /// The program comes in on standard input. Only its end, not an exit on the way, is reported.
  private static func child(_ python: String) -> Child {
    let start = """
      import os, sys
      program = sys.stdin.buffer.read().decode()
      exec(compile(program, "completion", "exec"), {})
      os.write(3, b"\(passed)")
      """
    return Child(
      path: python, arguments: ["-B", "-c", start],
      environment: ["LANG": "C.UTF-8", "HOME": "/", "PYTHONHASHSEED": "0"])
  }

  /// Tries what must not be possible.
  private static func probe(_ python: String, _ limits: Limits) throws(PythonSandboxError) {
    let program = """
      import os, socket
      def refused(attempt):
        try:
          attempt()
        except PermissionError:
          return True
        except OSError:
          return False
        return False
      assert refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
      assert refused(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
      assert refused(lambda: os.open("/dev/null", os.O_WRONLY))
      assert refused(os.fork)
      """
    let verdict = try child(python).run(input: program, limits: limits, isIsolated: true)
    if verdict.hasPrefix(failure) { throw .notIsolated(String(verdict.dropFirst(failure.count))) }
    guard verdict == passed else { throw .notIsolated("a trial could use the network, write or start a process") }
  }
}

/// Why programs cannot be run.
public enum PythonSandboxError: Error, Sendable, Hashable, CustomStringConvertible {
  case noPython
  /// Programs could reach the network.
  case notIsolated(String)
  /// A system call that failed.
  case system(String)

  public var description: String {
    switch self {
    case .noPython: "expected python3 on the path, found none"
    case .notIsolated(let reason): "programs cannot be kept from the network here: \(reason)"
    case .system(let problem): "a program cannot be run: \(problem)"
    }
  }
}

/// A child process of the sandbox.
private struct Child {
  let path: String
  let arguments: [String]
  let environment: [String: String]

  /// Bytes of the longest verdict: a path.
  private static let verdictLimit = 4096

  /// Runs the child to its verdict, to its end or to the limit, whichever comes first, and ends it.
  ///
  /// - Returns: what it wrote to file descriptor 3.
  func run(input: String, limits: PythonSandbox.Limits, isIsolated: Bool) throws(PythonSandboxError) -> String {
    // Without a name, so that nothing is left to remove.
    guard let file = tmpfile() else { throw .system(String(cString: strerror(errno))) }
    defer { fclose(file) }
    let bytes = Array(input.utf8)
    guard fwrite(bytes, 1, bytes.count, file) == bytes.count, fflush(file) == 0 else {
      throw .system(String(cString: strerror(errno)))
    }
    rewind(file)
    let (child, verdict) = try start(input: fileno(file), limits, isIsolated)
    defer {
      close(verdict)
      // The group has the child's number for as long as the child has not been waited for.
      kill(-child, SIGKILL)
      kill(child, SIGKILL)
      while waitpid(child, nil, 0) < 0, errno == EINTR {}
    }
    return read(verdict, until: ContinuousClock.now + .seconds(limits.seconds))
  }

  private func start(
    input: CInt, _ limits: PythonSandbox.Limits, _ isIsolated: Bool
  ) throws(PythonSandboxError) -> (child: pid_t, verdict: CInt) {
    var arguments: [UnsafeMutablePointer<CChar>?] = ([path] + self.arguments).map { strdup($0) } + [nil]
    var environment: [UnsafeMutablePointer<CChar>?] = self.environment.map { strdup("\($0)=\($1)") } + [nil]
    defer { for text in arguments + environment { free(text) } }
    var verdict: CInt = -1
    let child = path.withCString { path in
      arguments.withUnsafeMutableBufferPointer { arguments in
        environment.withUnsafeMutableBufferPointer { environment in
          var sandbox = kindred_sandbox(
            path: path, arguments: arguments.baseAddress, environment: environment.baseAddress, input: input,
            cpu_seconds: CUnsignedInt(limits.processorSeconds), memory_bytes: CUnsignedLong(limits.memoryBytes),
            isolated: isIsolated)
          return kindred_sandbox_start(&sandbox, &verdict)
        }
      }
    }
    guard child > 0 else { throw .system(String(cString: strerror(-child))) }
    return (child, verdict)
  }

  /// What comes before the end of the file, the deadline or the verdict that a program passed.
  private func read(_ descriptor: CInt, until deadline: ContinuousClock.Instant) -> String {
    var verdict: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 512)
    while verdict.count < Self.verdictLimit, verdict != Array(PythonSandbox.passed.utf8) {
      let left = (deadline - ContinuousClock.now) / .milliseconds(1)
      guard left > 0 else { break }
      var waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
      let ready = poll(&waiting, 1, CInt(left.rounded(.up)))
      if ready < 0, errno == EINTR { continue }
      guard ready > 0 else { break }
      let count = Foundation.read(descriptor, &chunk, chunk.count)
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { break }
      verdict += chunk[..<count]
    }
    return String(decoding: verdict, as: UTF8.self)
  }
}
