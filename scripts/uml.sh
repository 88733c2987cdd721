#!/usr/bin/env bash
# Runs a command inside User-Mode Linux: Debian's own kernel as an ordinary program, with modules that
# this machine's kernel may lack, on this machine's files. Needs no root. Output and exit status are the
# command's. For correctness, not for speed: it has one processor, and a system call takes 20 us or more.
# Exit codes: the command's own; 2 wrong usage; 3 the kernel did not start, or did not come to the
# command's end in time.
set -euo pipefail

usage="usage: scripts/uml.sh COMMAND [ARGUMENT…]
  Environment: UML_MEMORY (512M), UML_TIMEOUT (300 seconds), UML_MODULES (veth sch_netem sch_prio);
  of the rest only HOME and LAB_REQUIRE reach the command"
if (($# == 0)) || [[ $1 == -* ]]; then
  echo "$usage" >&2
  exit 2
fi
command -v linux.uml >/dev/null || {
  echo "uml: no linux.uml here; install it with apt-get install user-mode-linux (x86 only), or: scripts/deps.sh lab-netem" >&2
  exit 3
}
command -v cc >/dev/null || {
  echo "uml: no C compiler here; install one with apt-get install gcc libc6-dev, or: scripts/deps.sh lab-netem" >&2
  exit 3
}

folder=$(mktemp -d "${TMPDIR:-/tmp}/uml.XXXXXX")
guest="" reader=""
# Whoever stops us stops the guest: it is many processes, in a group of their own.
clean_up() {
  [[ -z $guest ]] || kill -KILL -- "-$guest" 2>/dev/null || true
  [[ -z $reader ]] || kill "$reader" 2>/dev/null || true
  rm -rf "$folder"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

{
  printf 'cd %q\n' "$PWD"
  for name in HOME LAB_REQUIRE; do
    [[ -z ${!name+set} ]] || printf 'export %s=%q\n' "$name" "${!name}"
  done
  printf '%q ' "$@"
  echo
} >"$folder/command"
echo "${UML_MODULES-veth sch_netem sch_prio}" >"$folder/modules"
touch "$folder/output"

# The guest's first process. Its files are ours: what it writes below the folder we can read.
cat >"$folder/init" <<'INIT'
#!/bin/bash
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
folder=${0%/*}
mount -t proc proc /proc || exit 1
mount -t sysfs sys /sys
# modprobe looks below lib/modules; Debian keeps the guest's elsewhere.
mkdir -p "$folder/guest/lib"
ln -s /usr/lib/uml/modules "$folder/guest/lib/modules"
missing=""
for module in ipv6 $(<"$folder/modules"); do
  modprobe -d "$folder/guest" "$module" || missing+=" $module"
done 2>/dev/null
ip link set lo up
if [[ -n $missing ]]; then
  echo "uml: the guest's kernel has no module$missing" >"$folder/output"
  echo 3 >"$folder/status"
else
  bash "$folder/command" >"$folder/output" 2>&1 </dev/null
  echo $? >"$folder/status"
fi
sync
# Only where it ends the guest: the host has such a file, too.
grep -q 'User Mode Linux' /proc/cpuinfo && echo o >/proc/sysrq-trigger
sleep 10
INIT
chmod 755 "$folder/init"

# See there.
cc -shared -fPIC -O1 -o "$folder/xstate.so" "$(dirname "${BASH_SOURCE[0]}")/uml-xstate.c"

setsid timeout --kill-after=5 "${UML_TIMEOUT:-300}" env LD_PRELOAD="$folder/xstate.so" linux.uml root=/dev/root rootfstype=hostfs \
  rootflags=/ rw init="$folder/init" mem="${UML_MEMORY:-512M}" uml_dir="$folder/" quiet \
  con=null con0=null,fd:1 con1=null </dev/null >"$folder/console" 2>&1 &
guest=$!
tail -n +1 --pid="$guest" -s 0.2 -f "$folder/output" &
reader=$!
# Its own exit status says nothing of the command's.
ended=0
wait "$guest" || ended=$?
wait "$reader" || true
reader=""
if [[ ! -s $folder/status ]]; then
  # timeout(1) has these for what it ended itself; a kernel that was killed otherwise has the second, too.
  if ((ended == 124 || ended == 137 && SECONDS >= ${UML_TIMEOUT:-300})); then
    echo "uml: the guest did not come to the command's end in ${UML_TIMEOUT:-300} s; its last words:" >&2
  else
    echo "uml: the guest's kernel ended by itself, with status $ended, before the command had; its last words:" >&2
  fi
  tail -n 5 "$folder/console" >&2
  exit 3
fi
exit "$(<"$folder/status")"
