// Qwen3 (arXiv 2505.09388): RMSNorm on each head's query and key. Checked against `Qwen3ForCausalLM`.

import KindredModelFiles

extension ModelFamily {
  static let qwen3 = ModelFamily(name: "qwen3", ggufArchitectures: ["qwen3"], huggingFaceTypes: ["qwen3"]) {
    (configuration, file) throws(ModelFileError) in
    configuration.normalizesQueriesAndKeys = true
    try file.requireFullAttention(contextLength: configuration.contextLength)
  }
}
