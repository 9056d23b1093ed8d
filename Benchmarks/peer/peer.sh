#!/bin/sh
# Runs `kindred bench` and llama.cpp alternately on one GGUF file; `peer.sh --help` says how.
#
# The first run makes a Python environment in $PEER_VENV (default: .venv beside this file) and compiles
# llama.cpp for this processor from the source that PyPI's llama-cpp-python carries; that needs python3-venv,
# gcc, g++ and some minutes. Later runs start at once.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=${PEER_VENV:-$here/.venv}
version=0.3.36
if ! "$venv/bin/python" -c "import llama_cpp; assert llama_cpp.__version__ == '$version'" 2>/dev/null; then
  echo "building llama.cpp from llama-cpp-python $version" >&2
  python3 -m venv "$venv"
  # GCC 12 declares that _tile_loadconfig reads 8 of its 64 bytes and drops the stores to the others; without
  # the flags below llama.cpp's AMX code crashes.
  flags="-fno-dse -fno-tree-dse"
  CFLAGS=$flags CXXFLAGS=$flags CMAKE_ARGS="-DGGML_NATIVE=ON" "$venv/bin/pip" install --quiet --no-cache-dir \
    --no-binary llama-cpp-python "llama-cpp-python==$version" >&2
fi
exec "$venv/bin/python" "$here/peer.py" "$@"
