#!/usr/bin/env bash
# Proves that the tests and scenarios which the documents name as evidence exist: a name in backticks
# with three underscores or more is a test's, with `…` at its end the beginning of one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

failed=0
count=0
complain() {
  echo "check-docs: $1" >&2
  failed=1
}

for document in README.md docs/comparison.md docs/interop.md docs/rfc-map.md; do
  # The README speaks of counters, too; its tests stand in tables.
  lines=.
  [[ $document != README.md ]] || lines='^\|'
  names=$(grep -E "$lines" "$document" | grep -oE '`[a-z0-9]+(_[a-z0-9]+){3,}(_?…)?`' | tr -d '`' | sort -u)
  for name in $names; do
    count=$((count + 1))
    case $name in
    *…) wanted="fn ${name%…}" ;;
    *) wanted="fn $name(" ;;
    esac
    grep -rqF --include='*.rs' -- "$wanted" dtls server client certs lab ||
      complain "$document names the test $name, which does not exist"
  done
  links=$(grep -oE '\]\([^):]+\)' "$document" | sed 's/^](//; s/)$//; s/#.*//' | sort -u || true)
  for link in $links; do
    [[ -e $(dirname "$document")/$link ]] || complain "$document links to $link, which does not exist"
  done
done

if ((failed == 0)); then
  echo "check-docs: $count tests named in the documents, all exist"
fi
exit "$failed"
