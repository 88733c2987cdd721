#!/usr/bin/env bash
# Proves that the tests and scenarios which the documents name as evidence exist. A name in backticks
# with three underscores or more is a test's, with `…` at its end the beginning of one. A name with
# hyphens that begins as some scenario's does is a scenario's or a pattern, and so is what follows
# `dtls-lab run` and `dtls-lab matrix`; options may follow.
set -euo pipefail
set -f # patterns of scenarios are words here
cd "$(dirname "${BASH_SOURCE[0]}")/.."

failed=0
count=0
count_scenarios=0
complain() {
  echo "check-docs: $1" >&2
  failed=1
}

scenarios=$(find lab/scenarios -name '*.toml' -printf '%f\n' | sed 's/\.toml$//' | sort)
beginnings=$(sed 's/-.*//' <<<"$scenarios" | sort -u | paste -sd '|')

# Whether a scenario has this name, or fits this pattern.
is_scenario() {
  local scenario
  for scenario in $scenarios; do
    # shellcheck disable=SC2053 # a pattern on purpose
    [[ $scenario != $1 ]] || return 0
  done
  return 1
}

for document in README.md docs/architecture.md docs/comparison.md docs/findings.md docs/interop.md docs/rfc-map.md docs/scenarios.md lab/README.md; do
  # The README speaks of counters, too; its tests stand in tables.
  lines=.
  [[ $document != README.md ]] || lines='^\|'
  names=$(grep -E "$lines" "$document" | grep -oE '`[a-z0-9]+(_[a-z0-9]+){3,}(_?…)?`' | tr -d '`' | sort -u || true)
  for name in $names; do
    count=$((count + 1))
    case $name in
    *…) wanted="fn ${name%…}" ;;
    *) wanted="fn $name(" ;;
    esac
    grep -rqF --include='*.rs' -- "$wanted" dtls server client certs lab ||
      complain "$document names the test $name, which does not exist"
  done
  named=$(grep -oE '`('"$beginnings"')(-[a-z0-9*]+)+( --[^`]*)?`' "$document" | sed 's/ --.*//' | tr -d '`' || true)
  # The README speaks of counters, whose names have hyphens too.
  [[ $document != README.md ]] || named=
  played=$(grep -oE 'dtls-lab (run|matrix)( '"'"'?[a-z0-9][a-z0-9*-]*'"'"'?)+' "$document" | sed -E "s/^dtls-lab (run|matrix) //; s/'//g" || true)
  for name in $(tr ' ' '\n' <<<"$named"$'\n'"$played" | sort -u); do
    # What the guide has its reader write is his own.
    ! grep -qF -- "my-scenarios/$name.toml" "$document" || continue
    count_scenarios=$((count_scenarios + 1))
    is_scenario "$name" || complain "$document names the scenario $name, which does not exist"
  done
  links=$(grep -oE '\]\([^):]+\)' "$document" | sed 's/^](//; s/)$//; s/#.*//' | sort -u || true)
  for link in $links; do
    [[ -e $(dirname "$document")/$link ]] || complain "$document links to $link, which does not exist"
  done
done

if ((failed == 0)); then
  echo "check-docs: $count tests and $count_scenarios scenarios named in the documents, all exist"
fi
exit "$failed"
