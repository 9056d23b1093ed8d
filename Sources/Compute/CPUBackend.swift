// The processor as a backend: weights in packed row panels, activations quantised per block of 32, every operation
// divided over a fork-join pool.
//
// Activations that meet quantised weights are two int8 planes: the rounded values, and the rounded rest. Products that
// ask for `ActivationPrecision.int16` use both. See docs/SPEED.md for what one plane costs in accuracy and the other in
// time.
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

  /// Rows as float, and as two int8 planes each.
  public final class Activations {
    let rows: Int, columns: Int
    private let values: AlignedBuffer, quants: AlignedBuffer, scales: AlignedBuffer, sums: AlignedBuffer
    private var padded: Int { (columns + 63) & ~63 }

    init(rows: Int, columns: Int) throws(ComputeError) {
      self.rows = rows
      self.columns = columns
      let padded = (columns + 63) & ~63
      values = try AlignedBuffer(byteCount: rows * columns * 4)
      // [planes, rows] of padded int8, padded / 32 scales and padded / 16 sums
      quants = try AlignedBuffer(byteCount: rows * CPUBackend.planes * padded)
      scales = try AlignedBuffer(byteCount: rows * CPUBackend.planes * padded / 8)
      sums = try AlignedBuffer(byteCount: rows * CPUBackend.planes * padded / 4)
    }

    /// The float values of row `index`.
    subscript(row index: Int) -> UnsafeMutablePointer<Float> {
      values.pointer.assumingMemoryBound(to: Float.self) + index * columns
    }

    /// Quantises row `index` of `count` from its float values, then what rounding has left.
    ///
    /// The planes stand one after the other, each of `count` rows.
    func quantize(row index: Int, of count: Int, with kernels: kindred_kernels) {
      withUnsafeTemporaryAllocation(byteCount: columns * 4, alignment: 64) { memory in
        let rest = memory.baseAddress!.assumingMemoryBound(to: Float.self)
        var source = UnsafePointer(self[row: index])
        for plane in 0..<CPUBackend.planes {
          let row = plane * count + index
          let quants = quants.pointer.assumingMemoryBound(to: Int8.self) + row * padded
          let scales = scales.pointer.assumingMemoryBound(to: Float.self) + row * padded / 32
          let sums = sums.pointer.assumingMemoryBound(to: Int32.self) + row * padded / 16
          kernels.quantize(source, columns, quants, scales, sums)
          kindred_residual(source, columns, quants, scales, rest)
          source = UnsafePointer(rest)
        }
      }
    }

    /// The rows as the kernels read them, with the quants from row `first` of both planes on.
    func kernelView(from first: Int = 0) -> kindred_activations {
      kindred_activations(
        columns: columns, values: self[row: 0],
        quants: quants.pointer.assumingMemoryBound(to: Int8.self) + first * padded,
        scales: scales.pointer.assumingMemoryBound(to: Float.self) + first * padded / 32,
        sums: sums.pointer.assumingMemoryBound(to: Int32.self) + first * padded / 16)
    }
  }

  /// Keys or values of 64 positions.
  public final class Page {
    let memory: AlignedBuffer

    init(headDimension: Int, type: KVType) throws(ComputeError) {
      memory = try AlignedBuffer(
        byteCount: KVPageLayout.byteCount(headDimension: headDimension, type: type))
    }
  }

  /// int8 rows that stand for a row of activations.
  static let planes = 2

  public let configuration: BackendConfiguration
  let kernels: kindred_kernels
  let pool: ThreadPool

  /// - Parameters:
  ///   - threads: threads to compute with; by default one for each physical core.
  ///   - instructionSet: the kernels to use; by default ``InstructionSet/preferred()``.
  /// - Throws: `ComputeError.instructionSet` where the machine lacks what was asked for.
  public init(threads: Int? = nil, instructionSet: InstructionSet? = nil) throws(ComputeError) {
    let set = if let instructionSet { instructionSet } else { try InstructionSet.preferred() }
    kernels = try set.kernels()
    pool = ThreadPool(threadCount: threads ?? ThreadPool.physicalCoreCount)
    configuration = BackendConfiguration(instructionSet: set.rawValue, threads: pool.threadCount)
  }

  // MARK: Memory

  public func makeTensor(rows: Int, columns: Int) throws(ComputeError) -> Tensor {
    try Tensor(rows: rows, columns: columns)
  }

  public func makeActivations(rows: Int, columns: Int) throws(ComputeError) -> Activations {
    try Activations(rows: rows, columns: columns)
  }

  public func makePage(headDimension: Int, type: KVType) throws(ComputeError) -> Page {
    try Page(headDimension: headDimension, type: type)
  }

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
    forEachRow(rows) { row in
      self.kernels.rms_norm(input[row: row], weight[row: 0], epsilon, input.columns, output[row: row])
      output.quantize(row: row, of: rows, with: self.kernels)
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
    forEachRow(rows) { row in
      output[row: row].update(from: input[row: row], count: input.columns)
      output.quantize(row: row, of: rows, with: self.kernels)
    }
  }

  public func gate(_ gate: Tensor, _ up: Tensor, rows: Int, into output: Activations) {
    forEachRow(rows) { row in
      self.kernels.silu_multiply(gate[row: row], up[row: row], gate.columns, output[row: row])
      output.quantize(row: row, of: rows, with: self.kernels)
    }
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

  public func multiply(_ input: Activations, rows: Int, _ products: [Product<CPUBackend>]) {
    // Several pieces per thread even out a core that is slower or shared; one piece is a run of whole panels, and not
    // so small that taking it shows.
    let panels = products.reduce(0) { $0 + $1.matrix.panelCount }
    let smallest = max(1, Self.smallestPiece / (rows * input.columns * KINDRED_PANEL_ROWS))
    let piece = max(smallest, panels / (pool.threadCount * 8))
    let starts = products.reduce(into: [0]) { starts, product in
      starts.append(starts[starts.count - 1] + (product.matrix.panelCount + piece - 1) / piece)
    }
    pool.run(starts[products.count]) { _, item in
      var index = 0
      while item >= starts[index + 1] { index += 1 }
      let product = products[index]
      let first = (item - starts[index]) * piece
      let part = first..<min(first + piece, product.matrix.panelCount)
      if product.matrix.type.blockElements == 1 || product.precision == .int8 {
        self.multiply(input.kernelView(), rows: rows, product, panels: part)
      } else if rows > Self.jointRows {
        // A panel stays in the cache from one plane to the next.
        for panel in part {
          self.multiply(input.kernelView(), rows: rows, product, panels: panel..<panel + 1)
          self.multiply(input.kernelView(from: rows), rows: rows, product, panels: panel..<panel + 1, isRest: true)
        }
      } else {
        self.multiplyPlanesTogether(input, rows: rows, product, panels: part)
      }
    }
  }

  /// Multiplications that are worth a piece of their own: about two microseconds.
  private static let smallestPiece = 1 << 18

  /// Rows up to which both planes go through a kernel as rows of one call: weights are then read once, which is what
  /// takes the time.
  private static let jointRows = 3

  /// One product with one plane; the rest is added to what the first plane has given.
  private func multiply(
    _ view: kindred_activations, rows: Int, _ product: Product<CPUBackend>, panels: Range<Int>, isRest: Bool = false
  ) {
    withUnsafePointer(to: view) { view in
      kernels.multiply(
        product.matrix.type.kernelType, product.matrix.panels.pointer, panels.lowerBound, panels.upperBound,
        product.matrix.rows, view, rows, isRest ? nil : product.bias.map { UnsafePointer($0[row: 0]) },
        isRest || product.accumulates, product.output[row: 0], product.output.columns)
    }
  }

  /// Both planes in one call, some panels at a time. Sums are added in the order of two calls, so that results do not
  /// depend on the number of rows.
  private func multiplyPlanesTogether(
    _ input: Activations, rows: Int, _ product: Product<CPUBackend>, panels: Range<Int>
  ) {
    let matrix = product.matrix
    let group = min(panels.count, 16)  // panels whose sums stay in the first-level cache
    let width = group * KINDRED_PANEL_ROWS
    withUnsafeTemporaryAllocation(byteCount: Self.planes * rows * width * 4, alignment: 64) { memory in
      let sums = memory.baseAddress!.assumingMemoryBound(to: Float.self)  // [planes, rows, width]
      for panel in stride(from: panels.lowerBound, to: panels.upperBound, by: group) {
        let first = panel * KINDRED_PANEL_ROWS
        let end = min(panel + group, panels.upperBound)
        withUnsafePointer(to: input.kernelView()) { view in
          kernels.multiply(
            matrix.type.kernelType, matrix.panels.pointer, panel, end, matrix.rows, view, rows * Self.planes, nil,
            false, sums - first, width)
        }
        let count = min(end * KINDRED_PANEL_ROWS, matrix.rows) - first
        for row in 0..<rows {
          kindred_add_planes(
            sums + row * width, sums + (rows + row) * width, product.bias.map { UnsafePointer($0[row: 0]) + first },
            product.accumulates, count, product.output[row: row] + first)
        }
      }
    }
  }

  /// Divides rows over the threads, eight at a time: a row costs about a microsecond, as much as taking an item.
  private func forEachRow(_ rows: Int, _ body: (Int) -> Void) {
    pool.run((rows + 7) / 8) { _, block in
      for row in block * 8..<min(rows, block * 8 + 8) { body(row) }
    }
  }
}

extension CPUBackend {
  /// Writes `count` stored elements of `type` as float; the slow, obviously right reading of a model file.
  ///
  /// - Precondition: `bytes` holds that many elements, in whole blocks.
  public static func dequantize(_ bytes: UnsafeRawBufferPointer, type: TensorType, count: Int) -> [Float] {
    precondition(type.byteCount(elements: count) ?? .max <= bytes.count, "dequantize: too few bytes")
    return [Float](unsafeUninitializedCapacity: count) { buffer, initialized in
      if let source = bytes.baseAddress, let destination = buffer.baseAddress {
        kindred_dequantize(type.kernelType, source, count, destination)
      }
      initialized = count
    }
  }
}
