"""Makes `Fixtures/similarities.json`: what each measure of IAM's Table 1 says of the maps in `Fixtures/pair/`.

The maps are those that `make_fixtures.py` stored, computed in PyTorch; the measures are SciPy's distances over the
n(n+1)/2 entries of the lower triangle. For each measure: `values` (base64 of little-endian F32, `[L·H, l·h]`),
`map`, the best small head of each large one, and `ranking`, the large model's layers by the mean of their heads' best
values, the most alike first. `norm_ratios` `[L·H, l·h]` are ‖A‖ / ‖A'‖.

Run: `python3 Tests/AttentionMappingTests/make_similarities.py` with numpy and scipy installed; the file names the
versions.
"""

import base64
import json
import pathlib

import numpy
import scipy
from scipy.spatial.distance import cdist

FIXTURES = pathlib.Path(__file__).parent / "Fixtures"
HEADS, SMALL_HEADS = 6, 4  # query heads of a layer


def decode(text, rows):
  return numpy.frombuffer(base64.b64decode(text), dtype="<f4").reshape(rows, -1).astype(float)


def encode(values):
  return base64.b64encode(values.astype("<f4").tobytes()).decode()


def main():
  pair = json.loads((FIXTURES / "pair/expected.json").read_text())
  entries = pair["tau"] * (pair["tau"] + 1) // 2
  large = decode(pair["large_maps"], 3 * HEADS)
  small = decode(pair["small_maps"], 2 * SMALL_HEADS)[:, :entries]
  assert large.shape[1] == entries
  measures = {
    "cosine": 1 - cdist(large, small, "cosine"),
    "pearson": 1 - cdist(large, small, "correlation"),
    "minkowski-1": cdist(large, small, "minkowski", p=1),
    "minkowski-2": cdist(large, small, "minkowski", p=2),
  }
  measures["cosine-norm"] = measures["cosine"]
  result = {"versions": {"numpy": numpy.__version__, "scipy": scipy.__version__}, "measures": {}}
  for name, values in measures.items():
    score = -values if name.startswith("minkowski") else values
    margin = numpy.diff(numpy.sort(score, axis=1)[:, -2:]).min()
    assert margin > 1e-3, f"{name}: a head's two best candidates are too close to test: {margin}"
    means = score.max(axis=1).reshape(-1, HEADS).mean(axis=1)
    result["measures"][name] = {
      "values": encode(values), "map": score.argmax(axis=1).tolist(), "ranking": (-means).argsort().tolist()}
    print(f"{name}: smallest margin {margin:.4f}, means {means.round(4)}")
  norms = numpy.linalg.norm(large, axis=1)[:, None] / numpy.linalg.norm(small, axis=1)
  result["norm_ratios"] = encode(norms)
  (FIXTURES / "similarities.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
  main()
