#!/usr/bin/env bash
# Runs all tests in release mode: the kernels are two orders slower without optimisation. Tests of kernels and decoder run
# under every instruction set of this machine. Says which real models can be used.
set -euo pipefail
home=${KINDRED_HOME:-$HOME/.cache/kindred}
for model in qwen2.5-coder-0.5b qwen2.5-coder-1.5b smollm2-135m; do
  compgen -G "$home/models/$model/*.gguf" > /dev/null ||
    echo "test: $model is not fetched; its tests are skipped (kindred fetch $model)"
done
[ -d ../shared/data ] || echo "test: no evaluation data at ../shared/data; the tests that read it are skipped"
command -v chromium-headless-shell > /dev/null || command -v chromium > /dev/null ||
  echo "test: no headless browser; the test that opens a report is skipped (Scripts/setup.sh --browser)"

swift build -c release --build-tests
# Nothing that a test leaves behind, even a killed one, stays.
TMPDIR=$(mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
log=$TMPDIR/log
if ! swift test -c release --skip-build 2>&1 | tee "$log"; then
  echo "test: these failed:"
  grep '^✘' "$log" || tail -n 20 "$log"
  exit 1
fi
