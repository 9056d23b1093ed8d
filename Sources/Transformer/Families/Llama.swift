// Llama 2 and 3 and those built alike, such as SmolLM2 (arXiv 2407.21783). GGUF files of this architecture hold Q and
// K with rotated pairs side by side. Checked against `LlamaForCausalLM`.

import KindredModelFiles

extension ModelFamily {
  static let llama = ModelFamily(name: "llama", ggufArchitectures: ["llama"], huggingFaceTypes: ["llama", "smollm2"]) {
    (configuration, file) throws(ModelFileError) in
    if case .gguf = file { configuration.rotary.interleaved = true }
    try file.requireFullAttention(contextLength: configuration.contextLength)
  }
}
