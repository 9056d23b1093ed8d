#!/bin/sh
# Cross-compiles the kernels for AArch64 with the Swift toolchain's clang, and runs their driver where an
# emulator and a C library for that processor are installed (Debian: qemu-user libc6-dev-arm64-cross
# gcc-aarch64-linux-gnu).
set -eu
cd "$(dirname "$0")/../.."
clang=${CLANG:-$(dirname "$(readlink -f "$(command -v swift)")")/clang}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
# neon.c uses headers of the compiler only, so it compiles without a C library.
"$clang" --target=aarch64-linux-gnu -ffreestanding -std=c11 -O2 -Wall -Wextra -Werror \
  -ISources/CKernels/include -c Sources/CKernels/neon.c -o "$out/neon.o"
echo "neon.c compiles"
if ! command -v qemu-aarch64 >/dev/null || ! command -v aarch64-linux-gnu-gcc >/dev/null; then
  echo "not run: qemu-aarch64 or aarch64-linux-gnu-gcc is missing"
  exit 0
fi
"$clang" --target=aarch64-linux-gnu -fuse-ld=lld -static -std=c11 -O2 -ISources/CKernels/include \
  Tests/CKernelsDriver/driver.c Sources/CKernels/*.c -lm -o "$out/driver"
qemu-aarch64 "$out/driver"
