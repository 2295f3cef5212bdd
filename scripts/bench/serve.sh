#!/usr/bin/env bash
# `smoa serve` and llama-server under load over HTTP, in turns, in one run; then a long run of ours with eight adapters.
#
#   scripts/bench/serve.sh --adapters DIR [--model FILE] [--tokens N] [--rounds N] [--only PART] [--json OUT]
#
# DIR holds at least eight GGUF LoRA adapters of the model (scripts/bench/random_lora.py makes some). Builds smoa and, by
# scripts/bench/peer.sh, llama-server where they are not built yet. Environment: see scripts/lib.sh and scripts/bench/peer.sh.
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
step "build" build_release
"$SMOA_ROOT/scripts/bench/peer.sh" >/dev/null
exec python3 "$SMOA_ROOT/scripts/bench/serve.py" "$@"
