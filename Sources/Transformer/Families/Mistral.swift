// Mistral (arXiv 2310.06825) without its sliding window, which later releases gave up. Its GGUF files use the `llama`
// architecture. Checked against `MistralForCausalLM`.

import KindredModelFiles

extension ModelFamily {
  static let mistral = ModelFamily(name: "mistral", ggufArchitectures: [], huggingFaceTypes: ["mistral"]) {
    (configuration, file) throws(ModelFileError) in
    try file.requireFullAttention(contextLength: configuration.contextLength)
  }
}
