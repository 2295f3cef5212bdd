#!/usr/bin/env bash
# Answers with drafts and without, in turns, in one process: tokens per second and how many guesses were right.
#
#   scripts/bench/drafts.sh --data DIR [--model FILE] [--rounds N] [--requests N] [--tokens N] [--streams LIST]
#                           [--settings LIST] [--json OUT]
#
# DIR holds json-extract/dev.jsonl (rows with `messages`, as scripts/train writes them). Builds smoa where it is not built
# yet. Environment: SMOA_PROGRAM=FILE takes a program that is built; see scripts/lib.sh.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

case ${1:-} in
  -h | --help)
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit
    ;;
esac

step "tools" need_tools
step "model" fetch_model
SMOA_BIN=${SMOA_PROGRAM:-}
[[ -n $SMOA_BIN ]] || step "build" build_release
exec python3 "$SMOA_ROOT/scripts/bench/drafts.py" --smoa "$SMOA_BIN" --model "$SMOA_DEFAULT_MODEL" "$@"
