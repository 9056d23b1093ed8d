// Vectorised arithmetic on host values, for what works on logits outside of a backend.

import CKindredKernels

package enum VectorMath {
  private static let kernels: kindred_kernels = {
    let set = (try? InstructionSet.preferred()) ?? .generic
    guard let kernels = try? set.kernels() else { preconditionFailure("\(set): chosen but not available") }
    return kernels
  }()

  /// Σ exp((xᵢ − shift) / divisor), NaN counted as 0; within 1e-6 of the true sum of these float arguments.
  package static func sumOfExponentials(
    _ values: UnsafeBufferPointer<Float>, minus shift: Float, dividedBy divisor: Float
  ) -> Double {
    guard let base = values.baseAddress else { return 0 }
    return kernels.sum_exponentials(base, values.count, shift, divisor)
  }
}
