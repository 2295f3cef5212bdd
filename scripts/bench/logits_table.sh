#!/usr/bin/env bash
# Our logits against PyTorch's for every type of PEFT adapter, in a table; see logits_table.py for the arguments.
#
#   scripts/bench/logits_table.sh [--folders DIR] [--smoa FILE] [--as-lora] [--json FILE]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
here=$SMOA_ROOT/scripts/bench
venv=${SMOA_VENV:-${CARGO_TARGET_DIR:-$SMOA_ROOT/target}/logits-venv}
if [[ ! -x $venv/bin/python ]]; then
  step "Python packages" python3 -m venv "$venv"
fi
if ! "$venv/bin/python" -c 'import gguf, numpy' 2>/dev/null; then
  step "gguf and numpy" "$venv/bin/pip" install -q -r "$here/logits.requirements.txt"
fi
exec "$venv/bin/python" "$here/logits_table.py" "$@"
