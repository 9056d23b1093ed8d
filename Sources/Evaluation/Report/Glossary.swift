// What a reader who has not read the code should know.

/// Texts of a report that do not depend on results.
enum Glossary {
  static let introduction = [
    "A large language model decides for every word which of the words before it matter: attention. For that it keeps "
      + "keys and values of all of them, the KV cache, which grows with every word and every user. Models of one series, "
      + "large and small, attend to much the same places. IAM (Zhao, Li, Zhao, ACL 2025, arXiv 2507.11953) lets a small "
      + "model run beside the large one and lend it its attention: layers that borrow need no keys of their own.",
    "This report shows what that costs in quality and what it saves in memory and time, as Kindred measured it, with the "
      + "paper's numbers beside. The small model's memory and time are always counted. The paper's models are larger "
      + "(Qwen2-72B) and ran on GPUs: compare ratios, not absolute figures.",
  ]

  static let terms: [(term: String, meaning: String)] = [
    ("layer, head", "A model is a stack of layers; in each, several heads attend independently of each other."),
    (
      "keys and values, KV cache",
      "What a model keeps of every token read so far. Heads in groups that share keys and values (grouped queries) keep "
        + "less."
    ),
    ("borrowing, mapping", "A layer that borrows, or is mapped, uses a small model's attention in place of its own."),
    ("unmapped", "The large model with its own attention: what all else is compared with."),
    ("small", "The small model alone: whoever is no better than this could do without the large model."),
    ("paper:0.3", "The paper's recipe with 30% of the layers mapped, from the last one backwards."),
    ("plan:FILE", "A plan that kindred calibrate has found by measuring, for each layer and group of heads."),
    ("random:0.3", "As the recipe, but with small heads drawn by chance: what matching heads is worth."),
    ("shared:0.3", "Layers use a lower layer's attention (Shared Attention); no small model runs."),
    ("streaming:0.3", "Only the first few and the newest tokens are attended to (StreamingLLM); no small model runs."),
    ("token", "A word or a piece of one; models read and write tokens."),
    ("perplexity", "How surprised a model is by a text: as if it had to guess among so many tokens each time."),
    ("KL, divergence", "How far predictions are from the unmapped model's, in nats; 0 where they are the same."),
    ("TTFT", "Time to first token: reading the prompts."),
    ("TPOT", "Time per output token, after the first."),
    ("95% interval", "Where the score would lie in 95 of 100 draws of as many questions (bootstrap)."),
  ]
}
