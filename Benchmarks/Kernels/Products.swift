// Matrix products and what goes row by row.

import Benchmark
import KindredCompute

/// Products of 1, 4, 16 and 512 rows with the matrices of the feed-forward part.
func registerProducts() {
  for type in [TensorType.q4K, .q6K, .q8_0, .bf16] {
    for (outputs, inputs) in [(8960, 1536), (1536, 8960)] {
      let shape = "\(type.name) \(outputs) × \(inputs)"
      register("GEMM 512 rows, \(shape)", metrics: BenchmarkMetric.arithmetic) {
        try products(rows: 512, type: type, outputs: outputs, inputs: inputs, copies: 1)
      }
      for rows in [1, 4, 16] {
        register("GEMV \(rows) row\(rows == 1 ? "" : "s"), \(shape)", metrics: BenchmarkMetric.memory) {
          // So many that no cache holds them from one iteration to the next.
          let bytes = type.byteCount(elements: outputs * inputs) ?? 1
          return try products(
            rows: rows, type: type, outputs: outputs, inputs: inputs, copies: Ceilings.readBytes / bytes)
        }
      }
    }
  }
}

private func products(rows: Int, type: TensorType, outputs: Int, inputs: Int, copies: Int) throws -> Workload {
  let backend = try CPUBackend()
  // Any two bytes below 64 are a finite number of ordinary size, so any place may hold a scale.
  let stored = (0..<(type.byteCount(elements: outputs * inputs) ?? 0)).map { _ in UInt8.random(in: 0..<64) }
  let matrices = try (0..<copies).map { _ in
    try stored.withUnsafeBytes { try backend.makeMatrix(type: type, rows: outputs, columns: inputs, bytes: $0) }
  }
  let values = try backend.random(rows: rows, columns: inputs)
  let input = try backend.makeActivations(rows: rows, columns: inputs)
  let output = try backend.makeTensor(rows: rows, columns: outputs)
  func run() {
    for matrix in matrices {
      backend.multiply(input, rows: rows, [Product(matrix, into: output, precision: .int8, roundsWeights: true)])
    }
  }
  backend.prepare(values, rows: rows, into: input)
  run()
  return Workload(
    backend: backend, operations: 2 * Double(rows * outputs * inputs * copies),
    bytes: Double(matrices.reduce(0) { $0 + backend.byteCount(of: $1) }), body: run)
}

/// RMSNorm and making its rows ready for products: of a prompt's chunk, and of one row of many tensors.
func registerRows() {
  register("RMSNorm 512 rows of 1536", metrics: BenchmarkMetric.memory) {
    let backend = try CPUBackend()
    let input = try backend.random(rows: 512, columns: 1536)
    let weight = try backend.random(rows: 1, columns: 1536)
    let output = try backend.makeActivations(rows: 512, columns: 1536)
    return Workload(
      backend: backend, bytes: 512 * 1536 * 4,
      body: { backend.normalize(input, rows: 512, weight: weight, epsilon: 1e-6, into: output) })
  }
}
