#!/usr/bin/env bash
# Runs the driver of the kernels on a processor with AVX-512 that is emulated: Bochs 3.0, which has VNNI and BF16, with
# Debian's kernel. For machines without AVX-512; about ten minutes, seven once Bochs is built. Needs Debian, root, and
# its mirror; keeps what it has built in the folder $EMULATOR (default: .build/emulator).
set -euo pipefail
cd "$(dirname "$0")/../.."
clang=${CLANG:-$(dirname "$(readlink -f "$(command -v swift)")")/clang}
folder=$(realpath -m "${EMULATOR:-.build/emulator}")
mkdir -p "$folder/root/bin" "$folder/root/proc" "$folder/image/boot/grub"

packages=(bochsbios vgabios xorriso grub-pc-bin grub-common mtools cpio busybox-static patch g++ make xz-utils curl)
dpkg-query -W "${packages[@]}" > /dev/null 2>&1 ||
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" > /dev/null

bochs=$folder/bochs-3.0
if [ ! -x "$bochs/bochs" ]; then
  echo "building Bochs"
  archive=$folder/bochs.tar.xz
  curl -sSfLo "$archive" http://deb.debian.org/debian/pool/main/b/bochs/bochs_3.0+dfsg.orig.tar.xz
  echo "78f6c73d4a6472d5130a87ab9dc306d02c7c71ed8e25b3a8ef642e2a7acd282b  $archive" | sha256sum --check --quiet
  tar -xf "$archive" -C "$folder"
  # In vcvtne2ps2bf16 the upper half of the result is of the first source, which it reads past its end.
  sed -i '/other half of the elements/,/convert_ne/s/op1\.vmm32u(n)/op1.vmm32u(n - DWORD_ELEMENTS(len))/' \
    "$bochs/cpu/avx/avx512_bf16.cc"
  (cd "$bochs" && ./configure --enable-x86-64 --enable-cpu-level=6 --enable-avx --enable-evex --enable-amx \
    --enable-vmx=2 --enable-cet --enable-all-optimizations --disable-debugger --disable-logging --disable-stats \
    --disable-docbook --with-nogui --without-x CXXFLAGS="-O3 -fno-strict-aliasing" && make -j"$(nproc)") \
    > "$folder/bochs.log" 2>&1
fi
if [ ! -f "$folder/image/boot/vmlinuz" ]; then
  kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[^ ]*\).*/\1/p' | head -n 1)
  (cd "$folder" && apt-get download -qq -o APT::Sandbox::User=root "$kernel" && dpkg -x "$kernel"_*.deb kernel)
  cp "$folder"/kernel/boot/vmlinuz-* "$folder/image/boot/vmlinuz"
fi

echo "compiling the driver"
"$clang" -O2 -static -std=c11 -ISources/CKernels/include Tests/CKernelsDriver/driver.c Sources/CKernels/*.c -lm \
  -o "$folder/root/driver"
cp /usr/bin/busybox "$folder/root/bin/busybox"
cat > "$folder/root/init" << 'INIT'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/driver
echo "driver: exit $?"
/bin/busybox sleep 2
/bin/busybox poweroff -f
INIT
chmod +x "$folder/root/init"
(cd "$folder/root" && find . | cpio -o -H newc --quiet) > "$folder/image/boot/initrd"
# Without fsrm the kernel moves memory in ways that this processor has; one processor that the kernel need not measure.
cat > "$folder/image/boot/grub/grub.cfg" << 'GRUB'
set timeout=0
linux /boot/vmlinuz console=ttyS0,115200 quiet nokaslr mitigations=off nr_cpus=1 tsc=reliable clearcpuid=fsrm random.trust_cpu=1 8250.nr_uarts=1 no5lvl rdinit=/init
initrd /boot/initrd
boot
GRUB
grub-mkrescue -o "$folder/boot.iso" "$folder/image" > "$folder/mkrescue.log" 2>&1
cat > "$folder/bochsrc" << RC
display_library: nogui
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
cpu: model=sapphire_rapids, count=1, ips=200000000, reset_on_triple_fault=0, ignore_bad_msrs=1, exclude_features="amx,amx_int8,amx_bf16"
memory: guest=1024, host=1024
clock: sync=none
ata0-master: type=cdrom, path=$folder/boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$folder/serial
log: $folder/bochs-run.log
panic: action=fatal
error: action=report
info: action=ignore
RC

echo "running the driver"
: > "$folder/serial"
# What powers off the machine ends the emulator with an error.
timeout "${LIMIT:-3600}" "$bochs/bochs" -q -f "$folder/bochsrc" > "$folder/bochs-out.log" 2>&1 < /dev/null || true
tr -d '\r' < "$folder/serial" | grep -a '^driver\|: .* failures\|generic' || true
grep -aq 'avx512: 0 failures' "$folder/serial" && grep -aq 'driver: exit 0' "$folder/serial"
