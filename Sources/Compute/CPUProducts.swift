// Products of activations with packed weights on the processor.
//
// Few rows meet quantised weights as int8, in two planes: the rounded values, and the rounded rest. Products that ask
// for `ActivationPrecision.int16` use both. Many rows, on instruction sets with matrix tiles, meet them as bf16, in two
// planes again until they are so many that this costs time. See docs/SPEED.md for accuracy and time.

import CKindredKernels

extension CPUBackend {
  /// The forms of activations that kernels read, besides float.
  struct ActivationForms: OptionSet {
    let rawValue: Int
    /// Two int8 planes.
    static let quants = ActivationForms(rawValue: 1)
    /// bf16 tiles, and what rounding to bf16 has left.
    static let tiles = ActivationForms(rawValue: 2)
    static let restTiles = ActivationForms(rawValue: 4)
  }

  /// Rows as float, and in the forms that products have asked for.
  ///
  /// What a product asks for is made from then on together with the rows, while they are in the first-level cache.
  public final class Activations {
    let rows: Int, columns: Int
    /// The forms of the present rows.
    var ready: ActivationForms = []
    /// The forms that products have asked for, by class of the number of rows.
    fileprivate var wanted: [ActivationForms] = [[], [], []]
    private let values: AlignedBuffer, quants: AlignedBuffer, scales: AlignedBuffer, sums: AlignedBuffer
    private let tiles: AlignedBuffer, restTiles: AlignedBuffer
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
      // Whole tiles of rows; memory that nobody writes costs nothing.
      let tileRows = (rows + KINDRED_TILE_ROWS - 1) / KINDRED_TILE_ROWS * KINDRED_TILE_ROWS
      tiles = try AlignedBuffer(byteCount: tileRows * padded * 2)
      restTiles = try AlignedBuffer(byteCount: tileRows * padded * 2)
    }

    /// The float values of row `index`.
    subscript(row index: Int) -> UnsafeMutablePointer<Float> {
      values.pointer.assumingMemoryBound(to: Float.self) + index * columns
    }

    /// Makes forms of row `index` of `count` from its float values.
    func make(_ forms: ActivationForms, row index: Int, of count: Int, with kernels: kindred_kernels) {
      if forms.contains(.quants) { quantize(row: index, of: count, with: kernels) }
      if !forms.isDisjoint(with: [.tiles, .restTiles]) {
        packTiles(forms, of: self[row: index], columns: 0..<columns, row: index, with: kernels)
      }
    }

    /// Writes values of some columns of row `index` as bf16.
    func packTiles(
      _ forms: ActivationForms, of values: UnsafePointer<Float>, columns part: Range<Int>, row index: Int,
      with kernels: kindred_kernels
    ) {
      kernels.pack_tile_row(
        values, part.lowerBound, part.count, columns, index, tiles.pointer.assumingMemoryBound(to: UInt16.self),
        forms.contains(.restTiles) ? restTiles.pointer.assumingMemoryBound(to: UInt16.self) : nil)
    }

    /// Quantises a row, then what rounding has left. The planes stand one after the other, each of `count` rows.
    private func quantize(row index: Int, of count: Int, with kernels: kindred_kernels) {
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

    /// The rows as float and int8, with the quants from row `first` of both planes on.
    func kernelView(from first: Int = 0) -> kindred_activations {
      kindred_activations(
        columns: columns, values: self[row: 0],
        quants: quants.pointer.assumingMemoryBound(to: Int8.self) + first * padded,
        scales: scales.pointer.assumingMemoryBound(to: Float.self) + first * padded / 32,
        sums: sums.pointer.assumingMemoryBound(to: Int32.self) + first * padded / 16)
    }

    /// The rows from `row`, a multiple of 16, on as bf16 tiles.
    func tileView(_ forms: ActivationForms, from row: Int = 0) -> kindred_tiles {
      let offset = row * ((columns + 31) & ~31)
      return kindred_tiles(
        columns: columns, tiles: tiles.pointer.assumingMemoryBound(to: UInt16.self) + offset,
        rest: forms.contains(.restTiles) ? restTiles.pointer.assumingMemoryBound(to: UInt16.self) + offset : nil)
    }
  }

  /// int8 rows that stand for a row of activations.
  private static let planes = 2
  /// Rows from which products go through matrix tiles: a whole tile.
  private static let manyRows = KINDRED_TILE_ROWS
  /// Rows below which quantised weights, too, meet what rounding to bf16 has left: unpacking them takes most of the time.
  private static let preciseRows = 128
  /// Rows up to which both planes go through a kernel as rows of one call: weights are then read once, which is what
  /// takes the time.
  private static let jointRows = 3
  /// Multiplications that are worth a piece of their own: about two microseconds.
  private static let smallestPiece = 1 << 18
  /// Panels that the dense kernel reads side by side for one row.
  private static let densePanels = 4
  /// Panels of gate and of up in one piece of a gated product, and the rows that go through it together.
  private static let gatedPanels = 4, gatedRows = 512
  /// Bytes of scratch of a worker: what the kernels work in, and results of gate and up.
  static let scratchBytes = KINDRED_TILE_SCRATCH_BYTES + 2 * gatedRows * gatedPanels * KINDRED_PANEL_ROWS * 4
  /// Panels of one piece of a product in tiles, which share activations in the second-level cache.
  private static let tilePanels = 8

  /// Writes rows by `body` and makes their forms.
  func fill(_ output: Activations, rows: Int, _ body: (Int) -> Void) {
    let forms = output.wanted[Self.rowClass(rows)]
    forEachRow(rows) { row in
      body(row)
      output.make(forms, row: row, of: rows, with: self.kernels)
    }
    output.ready = forms
  }

  /// Makes the forms that are missing, and remembers to make them at once next time.
  private func require(_ forms: ActivationForms, of input: Activations, rows: Int) {
    let missing = forms.subtracting(input.ready)
    guard !missing.isEmpty else { return }
    input.wanted[Self.rowClass(rows)].formUnion(forms)
    forEachRow(rows) { row in input.make(missing, row: row, of: rows, with: self.kernels) }
    input.ready.formUnion(missing)
  }

  private static func rowClass(_ rows: Int) -> Int { rows < manyRows ? 0 : rows < preciseRows ? 1 : 2 }

  /// The form in which a product takes its rows.
  private func form(for type: TensorType, rows: Int) -> ActivationForms {
    let isTiled = rows >= Self.manyRows && kernels.multiply_tiles != nil
    switch type {
    case .f32, .f16: return []
    case .bf16: return isTiled ? [.tiles, .restTiles] : []
    default: return !isTiled ? .quants : rows < Self.preciseRows ? [.tiles, .restTiles] : .tiles
    }
  }

  public func multiply(_ input: Activations, rows: Int, _ products: [Product<CPUBackend>]) {
    var forms: ActivationForms = []
    var panels = 0
    for product in products {
      forms.formUnion(form(for: product.matrix.type, rows: rows))
      panels += product.matrix.panelCount
    }
    require(forms, of: input, rows: rows)
    // Several pieces per thread even out a core that is slower or shared; one piece is a run of whole panels, and not
    // so small that taking it shows.
    let smallest = max(1, Self.smallestPiece / (rows * input.columns * KINDRED_PANEL_ROWS))
    let piece = max(smallest, panels / (pool.threadCount * 8))
    var starts = [0]
    starts.reserveCapacity(products.count + 1)
    for product in products {
      let size = pieceSize(of: product, rows: rows, ordinary: piece)
      starts.append(starts[starts.count - 1] + (product.matrix.panelCount + size - 1) / size)
    }
    pool.run(starts[products.count]) { worker, item in
      var index = 0
      while item >= starts[index + 1] { index += 1 }
      let product = products[index]
      let size = self.pieceSize(of: product, rows: rows, ordinary: piece)
      let first = (item - starts[index]) * size
      self.multiply(
        input, rows: rows, product, panels: first..<min(first + size, product.matrix.panelCount), worker: worker)
    }
  }

  /// Panels in one piece of a product.
  private func pieceSize(of product: Product<CPUBackend>, rows: Int, ordinary: Int) -> Int {
    if form(for: product.matrix.type, rows: rows).contains(.tiles) {
      let count = product.matrix.panelCount
      let rounds = (count + Self.tilePanels * pool.threadCount - 1) / (Self.tilePanels * pool.threadCount)
      return (count + rounds * pool.threadCount - 1) / (rounds * pool.threadCount)
    }
    guard product.matrix.type.blockElements == 1 else { return ordinary }
    return (ordinary + Self.densePanels - 1) / Self.densePanels * Self.densePanels
  }

  /// Some panels of one product.
  private func multiply(
    _ input: Activations, rows: Int, _ product: Product<CPUBackend>, panels: Range<Int>, worker: Int
  ) {
    let form = form(for: product.matrix.type, rows: rows)
    if form.contains(.tiles) {
      multiplyTiles(
        input.tileView(form), rows: rows, product, panels: panels, worker: worker, output: product.output[row: 0],
        stride: product.output.columns)
    } else if form.isEmpty || product.precision == .int8 {
      multiply(input.kernelView(), rows: rows, product, panels: panels)
    } else if rows > Self.jointRows {
      // A panel stays in the cache from one plane to the next.
      for panel in panels {
        multiply(input.kernelView(), rows: rows, product, panels: panel..<panel + 1)
        multiply(input.kernelView(from: rows), rows: rows, product, panels: panel..<panel + 1, isRest: true)
      }
    } else {
      multiplyPlanesTogether(input, rows: rows, product, panels: panels)
    }
  }

  private func multiplyTiles(
    _ view: kindred_tiles, rows: Int, _ product: Product<CPUBackend>, panels: Range<Int>, worker: Int,
    output: UnsafeMutablePointer<Float>, stride: Int
  ) {
    withUnsafePointer(to: view) { tiles in
      kernels.multiply_tiles(
        product.matrix.type.kernelType, product.matrix.panels.pointer, panels.lowerBound, panels.upperBound,
        product.matrix.rows, tiles, rows, product.bias.map { UnsafePointer($0[row: 0]) }, product.accumulates, output,
        stride, tileScratch.pointer + worker * Self.scratchBytes)
    }
  }

  public func gatedProduct(
    _ input: Activations, rows: Int, gate: Product<CPUBackend>, up: Product<CPUBackend>, into output: Activations,
    for next: Product<CPUBackend>
  ) {
    let form = form(for: gate.matrix.type, rows: rows)
    let nextForm = self.form(for: next.matrix.type, rows: rows)
    guard form.contains(.tiles), self.form(for: up.matrix.type, rows: rows) == form, nextForm.contains(.tiles) else {
      multiply(input, rows: rows, [gate, up])
      return fill(output, rows: rows) { row in
        self.kernels.silu_multiply(gate.output[row: row], up.output[row: row], output.columns, output[row: row])
      }
    }
    require(form, of: input, rows: rows)
    let panels = gate.matrix.panelCount
    let pieces = (panels + Self.gatedPanels - 1) / Self.gatedPanels
    let width = Self.gatedPanels * KINDRED_PANEL_ROWS
    pool.run(pieces) { worker, piece in
      let part = piece * Self.gatedPanels..<min((piece + 1) * Self.gatedPanels, panels)
      let columns = part.lowerBound * KINDRED_PANEL_ROWS..<min(part.upperBound * KINDRED_PANEL_ROWS, gate.matrix.rows)
      // [rows, width] of gate and of up, which stay in the second-level cache
      let scratch = self.tileScratch.pointer + worker * Self.scratchBytes + KINDRED_TILE_SCRATCH_BYTES
      let gates = scratch.assumingMemoryBound(to: Float.self)
      let ups = gates + Self.gatedRows * width
      for first in stride(from: 0, to: rows, by: Self.gatedRows) {
        let count = min(Self.gatedRows, rows - first)
        for (product, target) in [(gate, gates), (up, ups)] {
          self.multiplyTiles(
            input.tileView(form, from: first), rows: count, product, panels: part, worker: worker,
            output: target - columns.lowerBound, stride: width)
        }
        for row in 0..<count {
          self.kernels.silu_multiply(gates + row * width, ups + row * width, columns.count, gates + row * width)
          output.packTiles(nextForm, of: gates + row * width, columns: columns, row: first + row, with: self.kernels)
        }
      }
    }
    output.ready = nextForm
  }

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
}
