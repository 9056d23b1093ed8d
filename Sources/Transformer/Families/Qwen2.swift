// Qwen2 and Qwen2.5 (arXiv 2407.10671): biases on Q, K and V. Checked against `Qwen2ForCausalLM`.

import KindredModelFiles

extension ModelFamily {
  static let qwen2 = ModelFamily(name: "qwen2", ggufArchitectures: ["qwen2"], huggingFaceTypes: ["qwen2"]) {
    (configuration, file) throws(ModelFileError) in
    try file.requireFullAttention(contextLength: configuration.contextLength)
  }
}
