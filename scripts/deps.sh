#!/usr/bin/env bash
# Installs what a target of the Makefile needs and this machine lacks; says what and why. Does
# nothing at all, and needs no rights, when nothing is missing.
# Exit codes: 0 everything is there; 2 wrong usage; 3 something is missing and cannot be installed.
set -euo pipefail

usage="usage: scripts/deps.sh build|check|lab|lab-full|lab-netem|memcheck|peers|test|all"
what=${1:-}
case $what in
build | check | lab | lab-full | lab-netem | memcheck | peers | test | all) ;;
*)
  echo "deps: no such set of tools: '$what'; $usage" >&2
  exit 2
  ;;
esac

# Programs for administrators are often missing from an ordinary user's PATH.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

compiles() {
  local dir status=0
  dir=$(mktemp -d)
  echo '#include <stdio.h>
int main(void) { return puts("") < 0; }' >"$dir/probe.c"
  cc -o "$dir/probe" "$dir/probe.c" 2>/dev/null || status=1
  rm -r "$dir"
  return "$status"
}
# Debian's perl-base has a perl, but not the modules that OpenSSL's Configure loads.
configures() { perl -MFindBin -MIPC::Cmd -MFile::Compare -MTime::Piece -e 1 2>/dev/null; }
has() { command -v "$1" >/dev/null; }
includes() { echo "#include <$1>" | cc -E - >/dev/null 2>&1; }
# A library to be loaded before a program's own: nothing is on the PATH.
has_faketime() { compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null; }
finds_openssl() { pkg-config --exists openssl 2>/dev/null; }

# Some packages come with a service that starts with the machine; the tests start the programs
# themselves, and nobody asked for more.
stop_services() { # the command that gives root's rights
  [[ -d /run/systemd/system ]] || return 0
  local name
  for name in radsecproxy freeradius rsyslog; do
    [[ " $packages " == *" $name "* ]] || continue
    echo "deps: disabling the service $name, which came with its package" >&2
    "$@" systemctl --quiet disable --now "$name" ||
      echo "deps: $name may run as a service now; systemctl disable --now $name ends that" >&2
  done
}

# Notes the packages as missing when the wanted set of tools needs them and the check fails.
needed() { # sets of tools, check, packages, reason
  local sets=$1 check=$2 names=$3 reason=$4
  [[ $what == all || " $sets " == *" $what "* ]] || return 0
  $check && return 0
  echo "deps: missing: $names: $reason" >&2
  packages+=" $names"
  checks+=("$check")
}

packages=""
checks=()
needed "build check lab lab-full lab-netem memcheck peers test" compiles "gcc libc6-dev" "a C compiler, for OpenSSL and aws-lc"
if [[ -n ${OPENSSL_NO_VENDOR:-} && ${OPENSSL_NO_VENDOR:-} != 0 ]]; then
  needed "build check lab lab-full memcheck peers test" finds_openssl "pkg-config libssl-dev" \
    "the system's OpenSSL, which OPENSSL_NO_VENDOR asks for"
else
  needed "build check lab lab-full memcheck peers test" "has make" "make" "builds OpenSSL"
  needed "build check lab lab-full memcheck peers test" configures "perl" "configures OpenSSL's build"
fi
needed "lab lab-full lab-netem test" "has ip" "iproute2" "ip, sets up the lab's network namespaces"
needed "lab lab-netem" "has tc" "iproute2" "tc, asks the kernel for netem"
needed "lab-netem" "has linux.uml" "user-mode-linux" "a kernel with netem, as an ordinary program; x86 alone has it"
needed "lab-netem" "has modprobe" "kmod" "loads that kernel's modules"
needed "lab lab-full test peers" "has openssl" "openssl" "openssl s_client and s_server, as other ends; openssl verify"
needed "memcheck" "has valgrind" "valgrind libc6-dbg" "watches every memory access of a test run"
needed "lab-full test peers" "has gnutls-cli" "gnutls-bin" "gnutls-cli and gnutls-serv, as other ends"
needed "lab-full peers" "has coap-server-openssl" "libcoap3-bin" "coap-server, as another other end"
needed "lab-full" "includes mbedtls/ssl.h" "libmbedtls-dev" "Mbed TLS, under the lab's small programs"
needed "lab-full" "includes wolfssl/ssl.h" "libwolfssl-dev" "wolfSSL, under the lab's small programs"
needed "lab-full test" "has socat" "socat" "another other end"
needed "test" "has coap-client-openssl" "libcoap3-bin" "CoAP clients with DTLS and a server without"
needed "test" "has radsecproxy" "radsecproxy" "asks over RADIUS/DTLS"
needed "test" "has freeradius" "freeradius" "answers behind us, without DTLS"
needed "test" "has radclient" "freeradius-utils" "radclient, asks radsecproxy"
needed "test" "has rsyslogd" "rsyslog" "collects syslog behind us, without DTLS"
needed "test" "has tshark" "tshark" "decrypts the lab's captures with the secrets in them"
needed "test" "has_faketime" "libfaketime" "makes the clocks of the lab's programs run faster"
needed "test" "has logger" "bsdutils" "logger, sends syslog"
needed "test" "has unshare" "util-linux" "unshare, gives a test a network of its own"
needed "test" "has prlimit" "util-linux" "prlimit, lowers the limits of a running server"
needed "test" "has systemd-analyze" "systemd" "systemd-analyze, checks the unit in dist/"

give_up() {
  echo "deps: $1" >&2
  exit 3
}

install_packages() {
  local as_root=() updated=false
  local command="apt-get install -y --no-remove --no-install-recommends$packages"
  has apt-get || give_up "no apt-get here; install by hand what provides:$packages"
  if ((EUID != 0)); then
    has sudo || give_up "installing needs root; run as root: apt-get update && $command"
    as_root=(sudo)
  fi
  echo "deps: running ${as_root[*]:+${as_root[*]} }$command" >&2
  apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q "$@" >&2; }
  update() {
    updated=true
    apt update
  }
  # A fresh machine has no package lists; an old one has lists that name files long gone.
  local name
  for name in $packages; do
    if [[ $(LC_ALL=C apt-cache policy "$name") != *"Candidate: "[0-9]* ]]; then
      update || give_up "apt-get update failed; mend that, then run: $command"
      break
    fi
  done
  # shellcheck disable=SC2086 # the list is split into its names on purpose
  if ! apt install -y --no-remove --no-install-recommends $packages; then
    ! $updated && update && apt install -y --no-remove --no-install-recommends $packages ||
      give_up "installing failed; mend what apt-get says above, then run: $command"
  fi
  stop_services "${as_root[@]}"
}

if [[ -n $packages ]]; then
  install_packages
  for check in "${checks[@]}"; do
    $check || give_up "the packages are installed, yet this still fails: $check"
  done
fi

has cargo || give_up "no cargo in PATH; install Rust from https://rustup.rs, then try again"
wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$(dirname "${BASH_SOURCE[0]}")/../Cargo.toml")
found=$(cargo --version | cut -d ' ' -f 2)
if [[ $(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1) != "$wanted" ]]; then
  give_up "Rust $found is too old, $wanted is needed; run: rustup update stable"
fi

if [[ $what == check || $what == all ]]; then
  missing=""
  cargo fmt --version >/dev/null 2>&1 || missing+=" rustfmt"
  cargo clippy --version >/dev/null 2>&1 || missing+=" clippy"
  [[ -z $missing ]] || give_up "this Rust lacks$missing; run: rustup component add$missing"
fi

if [[ $what == test || $what == all ]] && ! cargo nextest --version >/dev/null 2>&1; then
  echo "deps: missing: cargo-nextest: runs the tests, each in a process of its own" >&2
  echo "deps: running cargo install --locked cargo-nextest (some minutes, once)" >&2
  # A build of its own: its objects do not belong among the workspace's.
  env -u CARGO_TARGET_DIR cargo install --locked cargo-nextest >&2 ||
    give_up "installing cargo-nextest failed; see https://nexte.st for other ways to get it"
fi
