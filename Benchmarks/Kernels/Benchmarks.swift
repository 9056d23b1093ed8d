// Micro-benchmarks of what takes the time of a step, through the library's public operations, beside what the machine
// can do at most: each benchmark measures its ceilings first, in the same process, because clock and memory of a shared
// machine drift.
//
// `swift package benchmark` in this folder; `--filter 'GEMM.*'` for some. `KINDRED_ISA` chooses the kernels. Matrices
// have the shapes of Qwen2.5-Coder 1.5B.

import Benchmark
import CCeilings
import Foundation
import KindredCompute

let benchmarks: @Sendable () -> Void = {
  registerProducts()
  registerAttention()
  registerRows()
  registerSampling()
  registerTokenizer()
}

/// The most that a machine can do, with the kernels and threads of a backend.
struct Ceilings {
  /// Bytes read from memory per second.
  let read: Double
  /// Additions and multiplications per second; 0 where no instruction for them is known.
  let int8: Double
  let bf16: Double

  init(_ configuration: BackendConfiguration) {
    // Where a set has no bf16 instruction, or a slow one, float takes its place.
    let kinds: (int8: [ceiling], bf16: [ceiling]) =
      switch configuration.instructionSet {
      case "amx": ([CEILING_TILE_INT8, CEILING_VNNI_512], [CEILING_TILE_BF16])
      case "avx512": ([CEILING_VNNI_512], [CEILING_BF16_512, CEILING_FMA_256])
      case "avx2": ([CEILING_MADD_256], [CEILING_FMA_256])
      case "neon": ([CEILING_DOT_128], [CEILING_FMLA_128])
      default: ([], [])
      }
    func best(_ kinds: [ceiling]) -> Double {
      kinds.map { ceiling_operations($0, configuration.threads) }.max() ?? 0
    }
    read = ceiling_read(Self.readBytes, configuration.threads)
    int8 = best(kinds.int8)
    bf16 = best(kinds.bf16)
  }

  /// More than most caches hold; what streams weights reads as much.
  static let readBytes = 512 << 20
}

/// What one iteration of a benchmark does, and how much that is.
struct Workload {
  var backend: CPUBackend
  /// Additions and multiplications.
  var operations = 0.0
  /// Bytes that must be read.
  var bytes = 0.0
  var body: () -> Void
}

extension BenchmarkMetric {
  static let operationRate = custom("GOP/s", polarity: .prefersLarger, useScalingFactor: false)
  static let int8Share = custom("% of int8 peak", polarity: .prefersLarger, useScalingFactor: false)
  static let bf16Share = custom("% of bf16 peak", polarity: .prefersLarger, useScalingFactor: false)
  static let byteRate = custom("MB/s", polarity: .prefersLarger, useScalingFactor: false)
  static let readShare = custom("% of memory bandwidth", polarity: .prefersLarger, useScalingFactor: false)

  /// For what arithmetic bounds.
  static let arithmetic = [wallClock, operationRate, int8Share, bf16Share]
  /// For what memory bounds.
  static let memory = [wallClock, byteRate, readShare]
  /// For what has no ceiling.
  static let bytesAlone = [wallClock, byteRate]
}

/// Registers a benchmark.
///
/// - Parameters:
///   - name: its name.
///   - metrics: what is reported, the wall clock first.
///   - prepare: makes the workload; called when the benchmark runs, not when it is listed.
func register(_ name: String, metrics: [BenchmarkMetric], prepare: @escaping @Sendable () throws -> Workload) {
  var configuration = Benchmark.defaultConfiguration
  configuration.metrics = metrics
  configuration.units = Dictionary(uniqueKeysWithValues: metrics.dropFirst().map { ($0, .count) })
  configuration.maxDuration = .seconds(2)
  configuration.maxIterations = 1000
  _ = Benchmark(name, configuration: configuration) { (benchmark: Benchmark, state: (Workload, Ceilings)) in
    let (work, ceilings) = state
    let clock = ContinuousClock()
    benchmark.startMeasurement()
    let seconds = clock.measure(work.body) / .seconds(1)
    benchmark.stopMeasurement()
    func report(_ metric: BenchmarkMetric, _ value: Double) {
      if metrics.contains(metric), value.isFinite { benchmark.measurement(metric, Int(value.rounded())) }
    }
    report(.operationRate, work.operations / seconds / 1e9)
    report(.int8Share, 100 * work.operations / seconds / ceilings.int8)
    report(.bf16Share, 100 * work.operations / seconds / ceilings.bf16)
    report(.byteRate, work.bytes / seconds / 1e6)
    report(.readShare, 100 * work.bytes / seconds / ceilings.read)
  } setup: {
    let work = try prepare()
    return (work, Ceilings(work.backend.configuration))
  }
}

extension CPUBackend {
  /// A tensor of random values from -1 to 1.
  func random(rows: Int, columns: Int) throws -> Tensor {
    let tensor = try makeTensor(rows: rows, columns: columns)
    write((0..<rows * columns).map { _ in Float.random(in: -1...1) }, to: tensor)
    return tensor
  }
}
