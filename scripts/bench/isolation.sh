#!/usr/bin/env bash
# A long random trace of submit, cancel, reload under the same name and change of scale on the real engine, each answer
# compared with a cold run on llama.cpp's own path.
#
#   scripts/bench/isolation.sh [ACTS] [SEED]      2000 acts and seed 1 unless given
#
# Environment: see scripts/lib.sh.
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
cargo_env
export SMOA_TRACE_ACTS=${1:-2000} SMOA_TRACE_SEED=${2:-1} SMOA_TEST_MODEL=$SMOA_DEFAULT_MODEL
in_root cargo test "${CARGO_ARGS[@]}" --test it -- --nocapture --exact \
  isolation::no_trace_of_requests_reads_what_another_adapter_wrote
