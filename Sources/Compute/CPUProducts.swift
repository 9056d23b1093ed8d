// Products of activations with packed weights on the processor.
//
// Rows meet quantised weights as int8, or as int16 for products that ask for `ActivationPrecision.int16`. Many rows, on
// instruction sets with matrix tiles, meet them as bf16, in two planes: the rounded values, and the rounded rest. From
// `manyRows` rows on, where arithmetic takes the time, int8 or one plane has to do, and weights may be rounded once more
// (`multiply_rescaled`). See docs/SPEED.md for accuracy and time.

import CKindredKernels

extension CPUBackend {
  /// The forms of activations that kernels read, besides float.
  struct ActivationForms: OptionSet {
    let rawValue: Int
    static let int8 = ActivationForms(rawValue: 1)
    static let int16 = ActivationForms(rawValue: 2)
    /// bf16 tiles, and what rounding to bf16 has left.
    static let tiles = ActivationForms(rawValue: 4)
    static let restTiles = ActivationForms(rawValue: 8)
  }

  /// Rows of integers with the blocks of `kindred_activations`.
  private final class Integers {
    private let padded: Int
    private let isWide: Bool
    private let quants: AlignedBuffer, blocks: AlignedBuffer
    /// The low parts of int16.
    private let low: AlignedBuffer

    init(rows: Int, padded: Int, isWide: Bool) throws(ComputeError) {
      self.padded = padded
      self.isWide = isWide
      // Memory that nobody writes costs nothing.
      quants = try AlignedBuffer(byteCount: rows * padded)
      low = try AlignedBuffer(byteCount: isWide ? rows * padded : 0)
      blocks = try AlignedBuffer(
        byteCount: rows * padded / KINDRED_ACTIVATION_BLOCK * MemoryLayout<kindred_activation_block>.stride)
    }

    /// What lies from a column, a multiple of 64, of a row on.
    func from(row: Int, column: Int) -> (
      quants: UnsafeMutablePointer<Int8>, low: UnsafeMutablePointer<Int8>?,
      blocks: UnsafeMutablePointer<kindred_activation_block>
    ) {
      let element = row * padded + column
      return (
        quants.pointer.assumingMemoryBound(to: Int8.self) + element,
        isWide ? low.pointer.assumingMemoryBound(to: Int8.self) + element : nil,
        blocks.pointer.assumingMemoryBound(to: kindred_activation_block.self) + element / KINDRED_ACTIVATION_BLOCK
      )
    }
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
    private let values: AlignedBuffer
    private let narrow: Integers, wide: Integers
    private let tiles: AlignedBuffer, restTiles: AlignedBuffer
    private var padded: Int { (columns + 63) & ~63 }

    init(rows: Int, columns: Int) throws(ComputeError) {
      self.rows = rows
      self.columns = columns
      let padded = (columns + 63) & ~63
      values = try AlignedBuffer(byteCount: rows * columns * 4)
      narrow = try Integers(rows: rows, padded: padded, isWide: false)
      wide = try Integers(rows: rows, padded: padded, isWide: true)
      // Whole tiles of rows.
      let tileRows = (rows + KINDRED_TILE_ROWS - 1) / KINDRED_TILE_ROWS * KINDRED_TILE_ROWS
      tiles = try AlignedBuffer(byteCount: tileRows * padded * 2)
      restTiles = try AlignedBuffer(byteCount: tileRows * padded * 2)
    }

    /// The float values of row `index`.
    subscript(row index: Int) -> UnsafeMutablePointer<Float> {
      values.pointer.assumingMemoryBound(to: Float.self) + index * columns
    }

    /// Makes forms of row `index` from its float values.
    func make(_ forms: ActivationForms, row index: Int, with kernels: kindred_kernels) {
      make(forms, of: self[row: index], columns: 0..<columns, row: index, with: kernels)
    }

    /// Makes forms of some columns, from a multiple of 64 on, of row `index`.
    func make(
      _ forms: ActivationForms, of values: UnsafePointer<Float>, columns part: Range<Int>, row index: Int,
      with kernels: kindred_kernels
    ) {
      func quantize(into integers: Integers) {
        let (quants, low, blocks) = integers.from(row: index, column: part.lowerBound)
        kernels.quantize(values, part.count, quants, low, blocks)
      }
      if forms.contains(.int8) { quantize(into: narrow) }
      if forms.contains(.int16) { quantize(into: wide) }
      if !forms.isDisjoint(with: [.tiles, .restTiles]) {
        kernels.pack_tile_row(
          values, part.lowerBound, part.count, columns, index, tiles.pointer.assumingMemoryBound(to: UInt16.self),
          forms.contains(.restTiles) ? restTiles.pointer.assumingMemoryBound(to: UInt16.self) : nil)
      }
    }

    /// The rows from `row` on as float and as int8 or int16.
    func kernelView(_ forms: ActivationForms, from row: Int = 0) -> kindred_activations {
      let (quants, low, blocks) = (forms.contains(.int16) ? wide : narrow).from(row: row, column: 0)
      return kindred_activations(columns: columns, values: self[row: row], quants: quants, low: low, blocks: blocks)
    }

    /// The rows from `row`, a multiple of 16, on as bf16 tiles.
    func tileView(_ forms: ActivationForms, from row: Int = 0) -> kindred_tiles {
      let offset = row * ((columns + 31) & ~31)
      return kindred_tiles(
        columns: columns, tiles: tiles.pointer.assumingMemoryBound(to: UInt16.self) + offset,
        rest: forms.contains(.restTiles) ? restTiles.pointer.assumingMemoryBound(to: UInt16.self) + offset : nil)
    }
  }

  /// Rows from which products go through matrix tiles: a whole tile.
  private static let tiledRows = KINDRED_TILE_ROWS
  /// Below, quantised weights meet int16 where a product asks for it, or what rounding to bf16 has left: short prompts
  /// stay that precise.
  public var manyRows: Int { Self.manyRows }
  private static let manyRows = 64
  /// Multiplications that are worth a piece of their own: about two microseconds.
  private static let smallestPiece = 1 << 18
  /// Panels that the dense kernel reads side by side for one row.
  private static let densePanels = 4
  /// Panels of gate and of up in one piece of a gated product, and the rows that go through it together: their results
  /// and activations share the second-level cache.
  private static let gatedPanels = 4, gatedRows = 512
  /// Bytes in which the kernels of a worker work.
  static let scratchBytes = KINDRED_TILE_SCRATCH_BYTES
  /// Bytes of results of gate and up that a worker keeps.
  static let gatedBytes = 2 * gatedRows * gatedPanels * KINDRED_PANEL_ROWS * 4
  /// Panels of one piece of a product in tiles, which share activations in the second-level cache.
  private static let tilePanels = 8

  /// Writes rows by `body` and makes their forms.
  func fill(_ output: Activations, rows: Int, _ body: (Int) -> Void) {
    let forms = output.wanted[Self.rowClass(rows)]
    forEachRow(rows) { row in
      body(row)
      output.make(forms, row: row, with: self.kernels)
    }
    output.ready = forms
  }

  /// Makes the forms that are missing, and remembers to make them at once next time.
  private func require(_ forms: ActivationForms, of input: Activations, rows: Int) {
    let missing = forms.subtracting(input.ready)
    guard !missing.isEmpty else { return }
    input.wanted[Self.rowClass(rows)].formUnion(forms)
    forEachRow(rows) { row in input.make(missing, row: row, with: self.kernels) }
    input.ready.formUnion(missing)
  }

  private static func rowClass(_ rows: Int) -> Int { rows < tiledRows ? 0 : rows < manyRows ? 1 : 2 }

  /// The form in which a product takes its rows.
  private func form(for product: Product<CPUBackend>, rows: Int) -> ActivationForms {
    let isTiled = rows >= Self.tiledRows && kernels.multiply_tiles != nil
    let isPrecise = rows < Self.manyRows
    switch product.matrix.type {
    case .f32, .f16: return []
    case .bf16: return isTiled ? [.tiles, .restTiles] : []
    default:
      if isTiled { return isPrecise ? [.tiles, .restTiles] : .tiles }
      return isPrecise && product.precision == .int16 ? .int16 : .int8
    }
  }

  public func multiply(_ input: Activations, rows: Int, _ products: [Product<CPUBackend>]) {
    var forms: ActivationForms = []
    var panels = 0
    for product in products {
      forms.formUnion(form(for: product, rows: rows))
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
        input,
        ProductPart(
          product: product, rows: 0..<rows, allRows: rows,
          panels: first..<min(first + size, product.matrix.panelCount), output: product.output[row: 0],
          stride: product.output.columns, worker: worker))
    }
  }

  /// Panels in one piece of a product.
  private func pieceSize(of product: Product<CPUBackend>, rows: Int, ordinary: Int) -> Int {
    if form(for: product, rows: rows).contains(.tiles) {
      let count = product.matrix.panelCount
      let rounds = (count + Self.tilePanels * pool.threadCount - 1) / (Self.tilePanels * pool.threadCount)
      return (count + rounds * pool.threadCount - 1) / (rounds * pool.threadCount)
    }
    guard product.matrix.type.blockElements == 1 else { return ordinary }
    return (ordinary + Self.densePanels - 1) / Self.densePanels * Self.densePanels
  }

  /// What one thread computes of a product, and where it puts it.
  private struct ProductPart {
    let product: Product<CPUBackend>
    /// Rows of activations, of so many.
    let rows: Range<Int>, allRows: Int
    let panels: Range<Int>
    /// Element (i, r) goes to `output[(i - rows.lowerBound) * stride + r]`.
    let output: UnsafeMutablePointer<Float>
    let stride: Int
    let worker: Int
  }

  private func multiply(_ input: Activations, _ part: ProductPart) {
    let form = form(for: part.product, rows: part.allRows)
    let first = part.rows.lowerBound
    if form.contains(.tiles) {
      multiplyTiles(input.tileView(form, from: first), part)
    } else {
      multiply(input.kernelView(form, from: first), part)
    }
  }

  private func multiplyTiles(_ view: kindred_tiles, _ part: ProductPart) {
    let product = part.product
    withUnsafePointer(to: view) { tiles in
      kernels.multiply_tiles(
        product.matrix.type.kernelType, product.matrix.panels.pointer, part.panels.lowerBound, part.panels.upperBound,
        product.matrix.rows, tiles, part.rows.count, product.bias.map { UnsafePointer($0[row: 0]) },
        product.accumulates, part.output, part.stride, tileScratch.pointer + part.worker * Self.scratchBytes)
    }
  }

  private func multiply(_ view: kindred_activations, _ part: ProductPart) {
    let product = part.product
    let isRescaled = part.allRows >= Self.manyRows && product.roundsWeights && product.matrix.type.blockElements > 1
    let multiply = isRescaled ? kernels.multiply_rescaled ?? kernels.multiply : kernels.multiply
    withUnsafePointer(to: view) { view in
      multiply!(
        product.matrix.type.kernelType, product.matrix.panels.pointer, part.panels.lowerBound, part.panels.upperBound,
        product.matrix.rows, view, part.rows.count, product.bias.map { UnsafePointer($0[row: 0]) },
        product.accumulates, part.output, part.stride)
    }
  }

  // MARK: Gate and up

  public func gatedProduct(
    _ input: Activations, rows: Int, gate: Product<CPUBackend>, up: Product<CPUBackend>, into output: Activations,
    for next: Product<CPUBackend>
  ) {
    let forms = form(for: gate, rows: rows).union(form(for: up, rows: rows))
    let nextForm = form(for: next, rows: rows)
    let integer: ActivationForms = [.int8, .int16]
    let sameKind = forms.isDisjoint(with: integer) == nextForm.isDisjoint(with: integer)
    guard rows >= Self.tiledRows, !forms.isEmpty, !nextForm.isEmpty, sameKind else {
      multiply(input, rows: rows, [gate, up])
      return fill(output, rows: rows) { row in
        self.kernels.silu_multiply(gate.output[row: row], up.output[row: row], output.columns, output[row: row])
      }
    }
    require(forms, of: input, rows: rows)
    let together = Self.gatedRows
    let panels = gate.matrix.panelCount
    let pieces = (panels + Self.gatedPanels - 1) / Self.gatedPanels
    let width = Self.gatedPanels * KINDRED_PANEL_ROWS
    pool.run(pieces) { worker, piece in
      let part = piece * Self.gatedPanels..<min((piece + 1) * Self.gatedPanels, panels)
      let columns = part.lowerBound * KINDRED_PANEL_ROWS..<min(part.upperBound * KINDRED_PANEL_ROWS, gate.matrix.rows)
      // [rows, width] of gate and of up, which stay in the second-level cache
      let gates = (self.gatedScratch.pointer + worker * Self.gatedBytes).assumingMemoryBound(to: Float.self)
      let ups = gates + together * width
      for first in stride(from: 0, to: rows, by: together) {
        let count = min(together, rows - first)
        for (product, target) in [(gate, gates), (up, ups)] {
          self.multiply(
            input,
            ProductPart(
              product: product, rows: first..<first + count, allRows: rows, panels: part,
              output: target - columns.lowerBound, stride: width, worker: worker))
        }
        for row in 0..<count {
          let gated = gates + row * width
          self.kernels.silu_multiply(gated, ups + row * width, columns.count, gated)
          output.make(nextForm, of: gated, columns: columns, row: first + row, with: self.kernels)
        }
      }
    }
    output.ready = nextForm
  }
}
