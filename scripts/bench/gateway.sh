#!/usr/bin/env bash
# Two servers behind nginx with docs/deploy/nginx.conf: asks through it while one of them is ended and started again.
#
#   scripts/bench/gateway.sh [MODEL]
#
# needs: nginx (Debian: apt-get install nginx-light) and curl. Environment: SMOA_PROGRAM=FILE takes a program that is
# built; see scripts/lib.sh for the rest.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
case ${1:-} in
  -h | --help)
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac
program=${SMOA_PROGRAM:-}
if [[ -z $program ]]; then
  need_tools
  [[ -n ${1:-} ]] || fetch_model
  build_release
  program=$SMOA_BIN
fi
model=${1:-$SMOA_DEFAULT_MODEL}
work=$(mktemp -d)
pids=()
finish() {
  kill "${pids[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT
server() {
  "$program" serve -m "$model" --port "$1" -c 2048 -np 2 -t 1 --metrics-compat vllm --log-disable 2>/dev/null &
  pids+=($!)
  last=$!
}
ready() {
  for _ in $(seq 300); do
    if curl -sf -o /dev/null "http://127.0.0.1:$1/health"; then return; fi
    sleep 0.1
  done
  echo "port $1 does not come up" >&2
  exit 1
}
server 18091
first=$last
server 18092
ready 18091
ready 18092
nginx -c "$SMOA_ROOT/docs/deploy/nginx.conf" -e "$work/errors" -g "pid $work/pid; daemon off; error_log $work/errors;" &
pids+=($!)
ready 18090

ask() {
  curl -s -o "$work/answer.$1" -w '%{http_code}\n' http://127.0.0.1:18090/v1/chat/completions \
    -H 'Content-Type: application/json' -H "X-Session: $2" \
    -d '{"max_tokens": 8, "messages": [{"role": "user", "content": "Name a colour."}]}'
}
round() { for n in $(seq 12); do ask "$n" "session-$n"; done | sort | uniq -c | sed "s/^ */$1: /"; }
answered() { curl -s "http://127.0.0.1:$1/metrics" | sed -n 's/^smoa_answers_total{.*} //p' | paste -sd+ | sed 's/^$/0/' | bc; }
round "both servers"
echo "answers by server: $(answered 18091) and $(answered 18092)"
kill "$first"
wait "$first" 2>/dev/null || true
round "one server gone"
server 18091
round "one server loading"
ready 18091
round "both again"
curl -sN http://127.0.0.1:18090/v1/chat/completions -H 'Content-Type: application/json' \
  -d '{"max_tokens": 30, "stream": true, "messages": [{"role": "user", "content": "Count to ten."}]}' |
  while IFS= read -r line; do [[ -z $line ]] || date +%s%N; done | sort -u | wc -l | sed 's/$/ moments at which a stream came/'
curl -s http://127.0.0.1:18091/metrics | grep '^vllm:'
