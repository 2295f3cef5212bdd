#!/usr/bin/env bash
# Builds a made-up adapter library and measures it.
#
#   scripts/bench/library.sh --count N [--json OUT] [--dir DIR]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
case ${1:-} in
  -h | --help)
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac
cargo_env
args=()
for arg in "$@"; do
  case $arg in
    --* | [0-9]*) args+=("$arg") ;;
    *) args+=("$(absolute "$arg")") ;;
  esac
done
bench library "${args[@]}"
