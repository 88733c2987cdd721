#!/usr/bin/env bash
# Proves the dependency direction of the workspace with `cargo tree`: for every member, which other
# members its programs may contain (directly or not), and which its tests may use besides.
set -euo pipefail
# Without it a failing cargo inside $(…) would look like a crate without dependencies.
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

declare -A linked=(
  [dtls]=""
  [dtls-certs]=""
  [dtls-server]="dtls"
  [dtls-client]="dtls"
  [dtls-lab]="dtls dtls-certs"   # dtls for the endpoints of its simulator only
)
declare -A tested_with=(
  [dtls]="dtls-certs"
  [dtls-certs]=""
  [dtls-server]="dtls-certs"
  [dtls-client]="dtls-certs"
  [dtls-lab]=""
)

# The workspace members among what a package depends on, over these kinds of edges.
members_below() { # package edges
  local tree
  tree=$(cargo tree --locked --quiet --all-features --target all \
    --package "$1" --edges "$2" --prefix none --format '{p}')
  awk -v self="$1" -v members=" ${members[*]} " \
    'NF && $1 != self && index(members, " " $1 " ") { print $1 }' <<<"$tree" | sort -u
}

members=$(cargo tree --locked --quiet --workspace --depth 0 --prefix none --format '{p}' |
  awk 'NF { print $1 }' | sort -u)
mapfile -t members <<<"$members"

failed=0
complain() {
  echo "check-deps: $1" >&2
  failed=1
}

for member in "${members[@]}"; do
  if [[ ! -v linked[$member] ]]; then
    complain "$member is not in the table of scripts/check-deps.sh; decide there what it may depend on"
    continue
  fi
  below=$(members_below "$member" normal,build)
  for found in $below; do
    if [[ " ${linked[$member]} " != *" $found "* ]]; then
      complain "$member must not depend on $found; see: cargo tree -p $member -i $found"
    fi
  done
  below=$(members_below "$member" normal,build,dev)
  for found in $below; do
    if [[ " ${linked[$member]} ${tested_with[$member]} " != *" $found "* ]]; then
      complain "the tests of $member must not depend on $found; see: cargo tree -p $member -e all -i $found"
    fi
  done
done
for member in "${!linked[@]}"; do
  if [[ " ${members[*]} " != *" $member "* ]]; then
    complain "$member is in the table of scripts/check-deps.sh but not in the workspace"
  fi
done

if ((failed == 0)); then
  echo "check-deps: ${#members[@]} crates, every dependency points the right way"
fi
exit "$failed"
