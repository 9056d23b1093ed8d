#!/bin/sh
# Runs the C kernels of every instruction set of this machine under the address and undefined-behaviour
# sanitizers. Needs a clang with its sanitizer runtimes, as in the Swift toolchain; $CLANG chooses another.
set -eu
cd "$(dirname "$0")/../.."
clang=${CLANG:-$(dirname "$(readlink -f "$(command -v swift)")")/clang}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
"$clang" -std=c11 -O1 -g -Wall -Wextra -Werror -fuse-ld=lld \
  -fsanitize=address,undefined -fno-sanitize-recover=all -DUNROLL= \
  -ISources/CKernels/include Tests/CKernelsDriver/driver.c Sources/CKernels/*.c -lm -o "$out/driver"
"$out/driver"
