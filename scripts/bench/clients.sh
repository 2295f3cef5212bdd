#!/usr/bin/env bash
# Runs unmodified clients from PyPI (openai, anthropic, ollama, litellm, llm) against `smoa serve`, and against
# llama-server where one is named; one line per check.
#
#   scripts/bench/clients.sh [MODEL]
#
# Environment: LLAMA_SERVER=PROGRAM runs the same checks against it too; SMOA_PROGRAM=FILE takes a program that is built;
# PYTHON (default python3) makes the virtual environment in target/clients; see scripts/lib.sh for the rest.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
case ${1:-} in
  -h | --help)
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac
SMOA_BIN=${SMOA_PROGRAM:-}
[[ -n $SMOA_BIN ]] || need_tools
[[ -n ${1:-} ]] || fetch_model
model=${1:-$SMOA_DEFAULT_MODEL}
[[ -n $SMOA_BIN ]] || build_release
venv=$SMOA_ROOT/target/clients
if [[ ! -x $venv/bin/pip ]]; then
  "${PYTHON:-python3}" -m venv "$venv"
fi
"$venv/bin/pip" -q install -r "$SMOA_ROOT/scripts/bench/clients.requirements.txt" gguf numpy
work=$(mktemp -d)
server=
finish() {
  [[ -z $server ]] || kill "$server" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

# checks LABEL URL ARGS...: waits for the server, then runs the checks; their failures are told, not fatal
checks() {
  local label=$1 url=$2
  shift 2
  for _ in $(seq 600); do
    if curl -sf "$url/health" >/dev/null; then break; fi
    if ! kill -0 "$server" 2>/dev/null; then
      echo "$label does not come up" >&2
      exit 1
    fi
    sleep 0.1
  done
  "$venv/bin/python" "$SMOA_ROOT/scripts/bench/clients.py" "$url" --label "$label" "$@" || true
  kill "$server"
  wait "$server" 2>/dev/null || true
  server=
}

"$venv/bin/python" "$SMOA_ROOT/scripts/bench/random_lora.py" "$model" "$work" --seed 1 --std 0.05
"$SMOA_BIN" adapter add "$work/random-1.gguf" --name style -m "$model" --library "$work/library"
"$SMOA_BIN" serve -m "$model" --library "$work/library" --port 18080 -c 4096 --log-disable 2>/dev/null &
server=$!
checks smoa http://127.0.0.1:18080 --adapter style
if [[ -n ${LLAMA_SERVER:-} ]]; then
  "$LLAMA_SERVER" -m "$model" --port 18081 -c 16384 -np 4 --lora "$work/random-1.gguf" >/dev/null 2>&1 &
  server=$!
  checks llama-server http://127.0.0.1:18081
fi
