#!/bin/sh
# Measures Kindred against llama.cpp and OpenVINO GenAI, one after the other, on this machine; `peer.sh --help`
# says how. The first run sets up the peers from PyPI, which takes the time of compiling llama.cpp twice.
exec python3 "$(dirname "$0")/peer.py" "$@"
