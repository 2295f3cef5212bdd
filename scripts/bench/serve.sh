#!/usr/bin/env bash
# `smoa serve` and llama-server under load over HTTP, in turns, in one run; then a long run of ours with eight adapters.
#
#   scripts/bench/serve.sh --adapters DIR [--model FILE] [--tokens N] [--rounds N] [--only compare|soak|health] [--json OUT]
#
# DIR holds at least eight GGUF LoRA adapters of the model (scripts/bench/random_lora.py makes some; `health` needs none).
# Builds smoa and, by scripts/bench/peer.sh, llama-server where they are not built yet; soak and health do without the
# latter. Environment: SMOA_PROGRAM=FILE takes a program that is built; see scripts/lib.sh and scripts/bench/peer.sh.
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
case " $* " in
  *" --only soak "* | *" --only=soak "* | *" --only health "* | *" --only=health "*) ;;
  *) "$SMOA_ROOT/scripts/bench/peer.sh" >/dev/null ;;
esac
exec python3 "$SMOA_ROOT/scripts/bench/serve.py" --smoa "$SMOA_BIN" --model "$SMOA_DEFAULT_MODEL" "$@"
