#!/usr/bin/env bash
# Every check there is: formatting, lints, unit tests, end-to-end tests on the default model, doc tests.
#
#   scripts/test.sh            all of it
#   scripts/test.sh NAME...    only the tests whose names contain NAME
#
# Environment: SMOA_TEST_THREADS=N end-to-end tests at a time (default: half the CPUs, since each one
# loads the model and decodes with threads of its own); see scripts/lib.sh for the rest.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

case ${1:-} in
  -h | --help)
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit
    ;;
esac

cpus=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
threads=${SMOA_TEST_THREADS:-$((cpus > 3 ? cpus / 2 : 1))}
begin=$(now_ms)

check_scripts() {
  local file
  for file in "$SMOA_ROOT"/scripts/*.sh "$SMOA_ROOT"/scripts/bench/*.sh "$SMOA_ROOT/.ci/run"; do
    bash -n "$file"
  done
  python3 - "$SMOA_ROOT"/scripts/*.py "$SMOA_ROOT"/scripts/bench/*.py <<'PY'
import ast, sys
for path in sys.argv[1:]:
    ast.parse(open(path, encoding="utf-8").read(), path)
PY
}

step "tools" need_tools
step "model" fetch_model
export SMOA_TEST_MODEL=$SMOA_DEFAULT_MODEL
cargo_env

if (($# == 0)); then
  step "scripts" check_scripts
  if in_root cargo fmt --version >/dev/null 2>&1; then
    step "format" in_root cargo fmt --all --check
  else
    say "format: skipped, no rustfmt (rustup component add rustfmt)"
  fi
  if in_root cargo clippy --version >/dev/null 2>&1; then
    step "lints" in_root cargo clippy "${CARGO_ARGS[@]}" --all-targets -- -D warnings
  else
    say "lints: skipped, no clippy (rustup component add clippy)"
  fi
fi

step "build" in_root cargo test "${CARGO_ARGS[@]}" --no-run
step "unit tests" in_root cargo test "${CARGO_ARGS[@]}" --lib --bins -- "$@"
step "end-to-end tests" in_root cargo test "${CARGO_ARGS[@]}" --test '*' -- --test-threads="$threads" "$@"
step "doc tests" in_root cargo test "${CARGO_ARGS[@]}" --doc -- "$@"

say "all passed in $(seconds $(($(now_ms) - begin)))"
