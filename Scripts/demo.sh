#!/usr/bin/env bash
# Generates from one prompt with the large model alone, then with attention borrowed from the small one.
set -euo pipefail
kindred=$1 large=$2 small=$3 prompt=$4

echo
echo "== $large alone =="
"$kindred" generate -m "$large" -p "$prompt" -n 96
echo
echo "== $large with 30% of its layers borrowing the attention of $small =="
"$kindred" generate -m "$large" -s "$small" --ratio 0.3 -p "$prompt" -n 96
