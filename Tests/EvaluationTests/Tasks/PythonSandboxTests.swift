// Programs of a language model: what passes, and what they cannot do.

import Foundation
import KindredEvaluation
import Testing

#if os(Linux)
  private let isLinux = true
#else
  private let isLinux = false
#endif

@Suite(.enabled(if: isLinux, "programs can be isolated on Linux only"))
struct PythonSandboxTests {
  let sandbox: PythonSandbox

  init() throws {
    var limits = PythonSandbox.Limits()
    limits.processorSeconds = 1
    limits.seconds = 3
    limits.memoryBytes = 1 << 29
    sandbox = try PythonSandbox(limits: limits)
  }

  @Test func programsPassThatEnd() throws {
    #expect(
      try sandbox.passes("import math, re, typing, collections\nassert math.gcd(4, 6) == 2\nprint('x' * 10_000_000)"))
    #expect(try sandbox.passes("x = 'état 日本'\nassert len(x) == 7"))
    #expect(try sandbox.passes("# " + String(repeating: "long ", count: 100_000)))
    #expect(try sandbox.passes("import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()"))
  }

  @Test(arguments: [
    "assert False", "def f(:", "raise SystemExit(0)", "import os\nos._exit(0)", "import sys\nsys.exit()", "\0",
    "def f(): return f()\nf()", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "import os\nos.close(3)",
    "input()",
  ])
  func programsFailThatDoNot(program: String) throws {
    #expect(try !sandbox.passes(program))
  }

  /// Each tries one thing that must be refused, and passes if it is.
  @Test(arguments: [
    "socket.socket()", "socket.socket(socket.AF_UNIX)", "socket.socketpair()",
    "socket.create_connection(('127.0.0.1', 80))", "os.fork()", "os.system('true') and 1 / 0",
    "subprocess.run(['/bin/true'])", "open('/proc/self/oom_score_adj', 'w')", "open(MARK, 'a')", "os.unlink(MARK)",
    "os.rename(MARK, MARK + '2')", "os.chmod(MARK, 0)", "os.mkdir(MARK + '.d')", "os.symlink(MARK, MARK + '.l')",
    "os.truncate(MARK, 0)", "os.utime(MARK)", "os.kill(os.getppid(), 0)", "os.kill(0, 0)", "os.kill(-1, 0)",
    "resource.prlimit(os.getppid(), resource.RLIMIT_CPU)", "fcntl.fcntl(3, fcntl.F_SETOWN, os.getppid())",
    "os.setpriority(os.PRIO_PROCESS, os.getppid(), 5)", "os.memfd_create('x')",
    "ctypes.CDLL(None, use_errno=True).ptrace(16, os.getppid(), 0, 0) and raise_errno()",
    "ctypes.CDLL(None, use_errno=True).unshare(0x10000000) and raise_errno()",
  ])
  func programsAreRefused(attempt: String) throws {
    let folder = try DataFolder(["mark": "untouched"])
    let program = """
      import ctypes, fcntl, os, resource, socket, subprocess
      MARK = \(folder("mark").debugDescription)
      def raise_errno():
        raise OSError(ctypes.get_errno(), "refused")
      def attempt():
        \(attempt)
      try:
        attempt()
      except PermissionError:
        refused = True
      except (OSError, ZeroDivisionError):
        refused = \(attempt.hasPrefix("os.system") ? "True" : "False")
      else:
        refused = False
      assert refused
      assert open(MARK).read() == "untouched"
      """
    #expect(try sandbox.passes(program))
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["mark"])
    #expect(try String(contentsOf: folder.url.appendingPathComponent("mark"), encoding: .utf8) == "untouched")
  }

  /// Limits end a program, soon.
  @Test(arguments: [
    "while True: pass", "import time\ntime.sleep(60)", "x = bytearray(1 << 30)", "x = []\nwhile True: x += [x] * 1000",
  ])
  func limitsHold(program: String) throws {
    let start = ContinuousClock.now
    #expect(try !sandbox.passes(program))
    #expect(ContinuousClock.now - start < .seconds(8))
  }

  @Test func programsRunAtTheSameTime() async throws {
    let passed = try await withThrowingTaskGroup(of: Bool.self) { group in
      for index in 0..<8 { group.addTask { try sandbox.passes("assert \(index) % 2 == 0") } }
      return try await group.reduce(into: 0) { $0 += $1 ? 1 : 0 }
    }
    #expect(passed == 4)
  }

  @Test func functionsAreTested() throws {
    let item =
      #"{"task_id": "T/0", "prompt": "def double(x):\n", "entry_point": "double", "test": "def check(f):\n  assert f(2) == 4"}"#
    let folder = try DataFolder(["h.jsonl": item, "bad.jsonl": item.replacing(#""double""#, with: #""f(); x""#)])
    let task = try HumanEvalTask(data: folder("h.jsonl"), sandbox: sandbox, maxTokens: 64)
    #expect(
      task.items[0].request
        == .generate(
          prompt: "def double(x):\n", maxTokens: 64, stop: ["\nclass", "\ndef", "\n#", "\nif", "\nprint"]))
    #expect(try task.scores(of: .text("    return 2 * x"), to: task.items[0]) == ["pass@1": 1])
    #expect(try task.scores(of: .text("    return 3 * x"), to: task.items[0]) == ["pass@1": 0])
    #expect(try task.scores(of: .text(""), to: task.items[0]) == ["pass@1": 0])
    #expect(problem { try HumanEvalTask(data: folder("bad.jsonl"), sandbox: sandbox) }?.contains("entry_point") == true)
  }
}
