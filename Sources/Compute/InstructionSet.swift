// The instruction sets that the kernels are written for, and the choice among them.

import CKindredKernels
import Foundation

/// A set of kernels, named after the processor features that it needs.
public enum InstructionSet: String, Sendable, CaseIterable {
  /// Plain C, for any processor.
  case generic
  /// AVX2, FMA and F16C.
  case avx2
  /// AVX-512 with VNNI and BF16.
  case avx512
  /// AVX-512 as above with matrix tiles of BF16 (AMX).
  case amx
  /// AArch64 with the dot product extension.
  case neon

  private var kernelID: kindred_isa {
    switch self {
    case .generic: KINDRED_ISA_GENERIC
    case .avx2: KINDRED_ISA_AVX2
    case .avx512: KINDRED_ISA_AVX512
    case .amx: KINDRED_ISA_AMX
    case .neon: KINDRED_ISA_NEON
    }
  }

  /// Those that this machine can run.
  public static var available: [InstructionSet] { allCases.filter { kindred_isa_available($0.kernelID) } }

  /// The one that the environment variable `KINDRED_ISA` asks for, or else the machine's best.
  public static func preferred() throws(ComputeError) -> InstructionSet {
    guard let requested = ProcessInfo.processInfo.environment["KINDRED_ISA"], !requested.isEmpty else {
      let best = kindred_isa_best()
      return allCases.first { $0.kernelID == best } ?? .generic
    }
    guard let set = InstructionSet(rawValue: requested), kindred_isa_available(set.kernelID) else {
      throw .instructionSet(requested: requested, available: available.map(\.rawValue))
    }
    return set
  }

  /// Its kernels.
  package func kernels() throws(ComputeError) -> kindred_kernels {
    guard let table = kindred_kernels_for(kernelID) else {
      throw .instructionSet(requested: rawValue, available: Self.available.map(\.rawValue))
    }
    return table.pointee
  }
}
