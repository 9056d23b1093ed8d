"""Makes `Fixtures/real_models.json`: what PyPI `transformers` computes with the real models' own weights.

Each GGUF file is dequantised to F32 with the `gguf` package, so a difference from these numbers is the
engine's. Per model:
- `nll`: the negative log-likelihood, in nats, of tokens 1…511 of `wiki.test.raw`, each given all before it
  (no BOS);
- `prompts`: for each prompt its `text`, its ids as `prompt` (control tokens in the text are parsed), the 64
  ids of the greedy `continuation`, and at each step the `gap` between the two largest logits. A correct
  engine may leave the continuation where the gap is small, and from there on anything may differ.

Run: `python3 Tests/GenerationTests/make_references.py [NAME…]` with torch, transformers, tokenizers and gguf
installed, the models in `$KINDRED_HOME/models` (`kindred fetch`) and WikiText-2 in `../shared/data`. The 1.5B
model needs 9 GB of memory; names given on the command line are made anew and the others kept.
"""

import json
import os
import pathlib
import sys

import gguf
import tokenizers
import torch
import transformers

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from tiny_gguf import ARCHITECTURES, half_split
from tiny_models import versions

MODELS = ["smollm2-135m", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"]
HOME = pathlib.Path(os.environ.get("KINDRED_HOME", "~/.cache/kindred")).expanduser()
OUTPUT = pathlib.Path(__file__).parent / "Fixtures" / "real_models.json"
TEXT = pathlib.Path(__file__).parents[3] / "shared" / "data" / "wikitext2" / "wiki.test.raw"
SCORED_TOKENS = 512
NEW_TOKENS = 64

PROMPTS = {
  "code": 'def fibonacci(n):\n    """Return the n-th Fibonacci number, counting from zero."""\n',
  "prose":
    "The lighthouse keeper climbed the stairs for the last time that winter, and when he reached the lamp",
  "chat": (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\nWrite a long, detailed essay on why the sky is blue at noon and red at sunset.<|im_end|>\n"
    "<|im_start|>assistant\n"),
  "german":
    "Die Geschichte der Eisenbahn in Europa beginnt im frühen neunzehnten Jahrhundert. Zunächst wurden",
  "long": (
    "A program that reads its input one line at a time can begin to work before the last line has "
    "arrived, and it needs no more memory for a large file than for a small one. The price is that it can"
    " never look ahead. Suppose that we want the longest line of a file: one pass is enough, because the "
    "best line seen so far is all that has to be kept. Suppose instead that we want the median length. "
    "Now every length matters until the end, and a single pass with constant memory can only give an "
    "estimate. Between these two lies a whole family of questions: the number of distinct words, the ten "
    "most frequent words, the share of lines that are repeated. For each of them there is an exact method"
    " that keeps everything, and an approximate method that keeps a summary whose size does not depend on"
    " the input. A good summary has two properties. First, it can be updated with one more line in a "
    "constant number of steps. Second, two summaries made from two halves of a file can be merged into a "
    "summary of the whole. The second property is what allows the work to be divided among"),
}

# The pre-tokenisers that the models' own tokenizer.json files name.
QWEN2_PATTERN = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
  r"|\s+(?!\S)|\s+")
CONTROL, USER_DEFINED = 3, 4  # GGUF's token types


def make_tokenizer(fields):
  """The file's vocabulary and merges in PyPI `tokenizers`."""
  vocabulary = fields["tokenizer.ggml.tokens"].contents()
  merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
  model = tokenizers.models.BPE({token: index for index, token in enumerate(vocabulary)}, merges)
  tokenizer = tokenizers.Tokenizer(model)
  split, bytes_ = tokenizers.pre_tokenizers.Split, tokenizers.pre_tokenizers.ByteLevel
  if fields["tokenizer.ggml.pre"].contents() == "qwen2":
    tokenizer.normalizer = tokenizers.normalizers.NFC()
    pattern = tokenizers.Regex(QWEN2_PATTERN)
    parts = [split(pattern, "isolated"), bytes_(add_prefix_space=False, use_regex=False)]
  else:
    parts = [tokenizers.pre_tokenizers.Digits(individual_digits=True), bytes_(add_prefix_space=False)]
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(parts)
  types = fields["tokenizer.ggml.token_type"].contents()
  tokenizer.add_special_tokens([t for t, type_ in zip(vocabulary, types) if type_ in (CONTROL, USER_DEFINED)])
  return tokenizer


def make_config(fields):
  family = fields["general.architecture"].contents()
  value = lambda key: fields[f"{family}.{key}"].contents()
  return transformers.AutoConfig.for_model(
    family, hidden_size=value("embedding_length"), intermediate_size=value("feed_forward_length"),
    num_hidden_layers=value("block_count"), num_attention_heads=value("attention.head_count"),
    num_key_value_heads=value("attention.head_count_kv"), max_position_embeddings=value("context_length"),
    rms_norm_eps=value("attention.layer_norm_rms_epsilon"),
    vocab_size=len(fields["tokenizer.ggml.tokens"].data),
    rope_parameters={"rope_type": "default", "rope_theta": value("rope.freq_base")})


def make_model(reader):
  """A `transformers` model that owns the dequantised weights; nothing is allocated twice."""
  config = make_config(reader.fields)
  names = gguf.get_tensor_name_map(ARCHITECTURES[config.model_type], config.num_hidden_layers)
  tensors = {tensor.name: tensor for tensor in reader.tensors}
  config.tie_word_embeddings = "output.weight" not in tensors
  with torch.device("meta"):
    model = transformers.AutoModelForCausalLM.from_config(
      config, attn_implementation="eager", dtype=torch.float32)
  heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
  weights = {}
  for name in dict(model.named_parameters()):
    tensor = tensors.pop(names.get_name(name, try_suffixes=(".weight", ".bias")))
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    projection = next((part for part in name.split(".") if part in heads), None)
    if config.model_type == "llama" and projection:
      values = half_split(values, heads[projection])
    weights[name] = torch.from_numpy(values.copy() if not values.flags.writeable else values)
  assert not tensors, f"unused: {list(tensors)}"
  model.load_state_dict(weights, assign=True, strict=False)
  model.tie_weights()
  model.model.rotary_emb = type(model.model.rotary_emb)(config)
  assert all(p.device.type == "cpu" and p.dtype == torch.float32 for p in model.parameters())
  return model.eval()


@torch.no_grad()
def token_nll(model, tokens):
  logits = model(torch.tensor([tokens]), use_cache=False).logits[0, :-1]
  return torch.nn.functional.cross_entropy(logits, torch.tensor(tokens[1:]), reduction="none")


@torch.no_grad()
def greedy(model, prompt):
  """64 tokens and the gaps, with the key/value cache; end-of-text tokens do not end it."""
  continuation, gaps, cache, ids = [], [], None, prompt
  while len(continuation) < NEW_TOKENS:
    result = model(torch.tensor([ids]), past_key_values=cache, use_cache=True, logits_to_keep=1)
    cache = result.past_key_values
    values, best = result.logits[0, -1].topk(2)
    continuation.append(best[0].item())
    gaps.append(round((values[0] - values[1]).item(), 4))
    ids = continuation[-1:]
  return continuation, gaps


def reference(name):
  path = next((HOME / "models" / name).glob("*.gguf"))
  reader = gguf.GGUFReader(path)
  tokenizer = make_tokenizer(reader.fields)
  model = make_model(reader)
  tokens = tokenizer.encode(TEXT.read_bytes().decode(), add_special_tokens=False).ids[:SCORED_TOKENS]
  nll = token_nll(model, tokens)
  half = nll[SCORED_TOKENS // 2 - 1:]
  print(f"{name}: perplexity {nll.mean().exp():.3f}, second half {half.mean().exp():.3f}", flush=True)
  prompts = {}
  for key, text in PROMPTS.items():
    prompt = tokenizer.encode(text, add_special_tokens=False).ids
    continuation, gaps = greedy(model, prompt)
    print(f"{key}, {len(prompt)} tokens, smallest gap {min(gaps)}:", flush=True)
    end = reader.fields["tokenizer.ggml.eos_token_id"].contents()
    assert end not in continuation, "an engine would stop here: choose another prompt"
    prompts[key] = {"text": text, "prompt": prompt, "continuation": continuation, "gap": gaps}
  return {
    "file": path.name, "mean_nll": round(nll.mean().item(), 6), "nll": [round(x, 4) for x in nll.tolist()],
    "prompts": prompts}


def main():
  OUTPUT.parent.mkdir(exist_ok=True)
  made = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {}
  for name in sys.argv[1:] or MODELS:
    made |= {"versions": versions(), name: reference(name)}
    text = json.dumps(made, ensure_ascii=False)
    OUTPUT.write_text(text.replace('], "', '],\n"').replace('{"', '{\n"') + "\n")


if __name__ == "__main__":
  main()
