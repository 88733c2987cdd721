#!/usr/bin/env bash
# Builds the lab's endpoint programs for libraries that Debian packages without programs of their own.
# One whose library is missing is left out, and said so: its runs are skipped and counted by the lab.
# Exit codes: 0 built what can be built; 1 a program does not compile; 2 wrong usage; 3 no C compiler.
set -euo pipefail

[[ $# == 1 ]] || { echo "usage: lab/endpoints/build.sh FOLDER" >&2; exit 2; }
command -v cc >/dev/null || {
  echo "endpoints: no C compiler here; install one with apt-get install gcc libc6-dev, or: scripts/deps.sh lab-full" >&2
  exit 3
}
source=$(dirname "${BASH_SOURCE[0]}")
out=$1/endpoints
mkdir -p "$out"

build() { # name, header, package, libraries
  local name=$1 header=$2 package=$3
  shift 3
  if ! echo "#include <$header>" | cc -E - >/dev/null 2>&1; then
    rm -f "$out/lab-$name"
    echo "endpoints: no lab-$name: no header $header; apt-get install $package, or: scripts/deps.sh lab-full" >&2
    return 0
  fi
  [[ $out/lab-$name -nt $source/$name.c ]] && return 0
  cc -std=gnu11 -O2 -g -Wall -Wextra -Werror -o "$out/lab-$name.tmp" "$source/$name.c" "$@"
  mv "$out/lab-$name.tmp" "$out/lab-$name"
}

build mbedtls mbedtls/ssl.h libmbedtls-dev -lmbedtls -lmbedx509 -lmbedcrypto
build wolfssl wolfssl/ssl.h libwolfssl-dev -lwolfssl
