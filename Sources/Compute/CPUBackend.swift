// The processor as a backend: weights in packed row panels (products are in CPUProducts.swift, attention in
// CPUAttention.swift), every operation divided over a fork-join pool.
//
// Checked against `transformers` through the tiny models of `TransformerTests`; the kernels against their generic
// twins in `CKernelsTests`.

import CKindredKernels
import Foundation

/// Runs a decoder pass on the cores of this machine.
public final class CPUBackend: Backend {
  /// Float32 rows in host memory.
  public final class Tensor {
    /// Rows, and elements of a row.
    public let rows: Int, columns: Int
    private let memory: AlignedBuffer

    init(rows: Int, columns: Int) throws(ComputeError) {
      self.rows = rows
      self.columns = columns
      let (bytes, overflow) = rows.multipliedReportingOverflow(by: columns * 4)
      memory = try AlignedBuffer(byteCount: overflow ? -1 : bytes)
    }

    /// The first element of row `index`.
    subscript(row index: Int) -> UnsafeMutablePointer<Float> {
      memory.pointer.assumingMemoryBound(to: Float.self) + index * columns
    }
  }

  /// Weights as packed panels of 32 rows (`CKernels/panels.h`).
  public final class Matrix: @unchecked Sendable {
    let type: TensorType
    let rows: Int, columns: Int
    let panels: AlignedBuffer
    var panelCount: Int { (rows + KINDRED_PANEL_ROWS - 1) / KINDRED_PANEL_ROWS }

    init(type: TensorType, rows: Int, columns: Int) throws(ComputeError) {
      let panelBytes = kindred_panel_bytes(type.kernelType, columns)
      guard rows > 0, panelBytes > 0 else { throw .unsupportedShape(type: type, rows: rows, columns: columns) }
      self.type = type
      self.rows = rows
      self.columns = columns
      let panelRows = KINDRED_PANEL_ROWS
      panels = try AlignedBuffer(byteCount: (rows + panelRows - 1) / panelRows * panelBytes)
    }
  }

  /// Keys or values of 64 positions, or of a block.
  public final class Page {
    let memory: AlignedBuffer

    init(headDimension: Int, type: KVType, positions: Int) throws(ComputeError) {
      try type.check(headDimension: headDimension)
      memory = try AlignedBuffer(
        byteCount: KVPageLayout.byteCount(headDimension: headDimension, type: type, positions: positions))
    }

    init(copying other: Page) throws(ComputeError) {
      memory = try AlignedBuffer(byteCount: other.memory.byteCount)
      memory.pointer.copyMemory(from: other.memory.pointer, byteCount: other.memory.byteCount)
    }
  }

  /// The kernels in use and the threads that run them.
  public let configuration: BackendConfiguration
  let kernels: kindred_kernels
  let pool: ThreadPool
  /// What operations on many rows work in, `scratchBytes` for each worker; empty where the set has none of its own.
  let tileScratch: AlignedBuffer
  /// Results of gate and up, `gatedBytes` for each worker.
  let gatedScratch: AlignedBuffer

  /// - Parameters:
  ///   - threads: threads to compute with; by default one for each physical core.
  ///   - instructionSet: the kernels to use; by default ``InstructionSet/preferred()``.
  /// - Throws: `ComputeError.instructionSet` where the machine lacks what was asked for.
  public init(threads: Int? = nil, instructionSet: InstructionSet? = nil) throws(ComputeError) {
    let set = if let instructionSet { instructionSet } else { try InstructionSet.preferred() }
    kernels = try set.kernels()
    pool = ThreadPool(threadCount: threads ?? ThreadPool.physicalCoreCount)
    tileScratch = try AlignedBuffer(
      byteCount: kernels.attend_tiles == nil ? 0 : pool.threadCount * Self.scratchBytes)
    gatedScratch = try AlignedBuffer(byteCount: pool.threadCount * Self.gatedBytes)
    configuration = BackendConfiguration(instructionSet: set.rawValue, threads: pool.threadCount)
  }

  // MARK: Memory

  public func makeTensor(rows: Int, columns: Int) throws(ComputeError) -> Tensor {
    try Tensor(rows: rows, columns: columns)
  }

  public func makeActivations(rows: Int, columns: Int) throws(ComputeError) -> Activations {
    try Activations(rows: rows, columns: columns)
  }

  public func makePage(headDimension: Int, type: KVType, positions: Int) throws(ComputeError) -> Page {
    try Page(headDimension: headDimension, type: type, positions: positions)
  }

  public func copyPage(_ page: Page) throws(ComputeError) -> Page { try Page(copying: page) }

  public func makeMatrix(
    type: TensorType, rows: Int, columns: Int, bytes: UnsafeRawBufferPointer
  ) throws(ComputeError) -> Matrix {
    let matrix = try Matrix(type: type, rows: rows, columns: columns)
    guard let source = bytes.baseAddress, let needed = type.byteCount(elements: rows * columns),
      bytes.count >= needed
    else { throw .unsupportedShape(type: type, rows: rows, columns: columns) }
    let panelRows = KINDRED_PANEL_ROWS
    let panelBytes = kindred_panel_bytes(type.kernelType, columns)
    let rowBytes = needed / rows
    pool.run(matrix.panelCount) { _, panel in
      let first = panel * panelRows
      kindred_pack_panel(
        type.kernelType, source + first * rowBytes, min(panelRows, rows - first), columns,
        matrix.panels.pointer + panel * panelBytes)
    }
    return matrix
  }

  public func write(_ values: [Float], to tensor: Tensor) {
    precondition(values.count <= tensor.rows * tensor.columns, "more values than the tensor holds")
    values.withUnsafeBufferPointer { source in
      guard let base = source.baseAddress else { return }
      tensor[row: 0].update(from: base, count: source.count)
    }
  }

  public func read(_ tensor: Tensor, rows: Range<Int>) -> [Float] {
    precondition(rows.upperBound <= tensor.rows, "more rows than the tensor holds")
    return Array(UnsafeBufferPointer(start: tensor[row: rows.lowerBound], count: rows.count * tensor.columns))
  }

  public func gather(_ rows: some Collection<Int>, of source: Tensor, into destination: Tensor, at start: Int) {
    precondition(start + rows.count <= destination.rows && source.columns == destination.columns)
    for (index, row) in rows.enumerated() {
      destination[row: start + index].update(from: source[row: row], count: source.columns)
    }
  }

  public func byteCount(of matrix: Matrix) -> Int { matrix.panels.byteCount }

  // MARK: Rows

  public func normalize(_ input: Tensor, rows: Int, weight: Tensor, epsilon: Float, into output: Activations) {
    fill(output, rows: rows) { row in
      self.kernels.rms_norm(input[row: row], weight[row: 0], epsilon, input.columns, output[row: row])
    }
  }

  public func normalizeHeads(_ tensor: Tensor, rows: Int, weight: Tensor, epsilon: Float) {
    let dimension = weight.columns
    forEachRow(rows) { row in
      for start in stride(from: 0, to: tensor.columns, by: dimension) {
        let head = tensor[row: row] + start
        self.kernels.rms_norm(head, weight[row: 0], epsilon, dimension, head)
      }
    }
  }

  public func prepare(_ input: Tensor, rows: Int, into output: Activations) {
    fill(output, rows: rows) { row in output[row: row].update(from: input[row: row], count: input.columns) }
  }

  public func rotate(_ tensor: Tensor, heads: Int, by angles: RotaryAngles) {
    let dimension = tensor.columns / heads
    let half = angles.half
    angles.cosines.withUnsafeBufferPointer { cosines in
      angles.sines.withUnsafeBufferPointer { sines in
        guard let cosine = cosines.baseAddress, let sine = sines.baseAddress else { return }
        forEachRow(cosines.count / half) { row in
          for head in 0..<heads {
            self.kernels.rotate(
              tensor[row: row] + head * dimension, 2 * half, cosine + row * half, sine + row * half,
              angles.interleaved)
          }
        }
      }
    }
  }

  /// Divides rows over the threads, eight at a time: a row costs about a microsecond, as much as taking an item.
  func forEachRow(_ rows: Int, _ body: (Int) -> Void) {
    pool.run((rows + 7) / 8) { _, block in
      for row in block * 8..<min(rows, block * 8 + 8) { body(row) }
    }
  }
}
