#!/usr/bin/env bash
# A trained PEFT folder into the starter library: models/adapters/TASK.gguf and its card TASK.toml.
#
#   scripts/train/publish.sh TASK PEFT [FIGURE=NUMBER]...    figures: what `smoa eval` said, for the card
#
# Environment: SMOA_EXPERTS, the folder of tasks (TASK/train.jsonl gives the card its example prompts); SMOA_BIN, the
# program, built when not given; see scripts/lib.sh for the rest.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
if (($# < 2)) || [[ $1 == -* ]]; then
  sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit 2
fi
task=$1 peft=$2
shift 2
[[ -n ${SMOA_BIN:-} ]] || build_release
[[ -n ${SMOA_DEFAULT_MODEL:-} ]] || fetch_model
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
to=$SMOA_ROOT/models/adapters
"$SMOA_BIN" adapter add "$peft" --name "$task" --library "$work/library" -m "$SMOA_DEFAULT_MODEL" >&2
"$SMOA_BIN" adapter export "$task" --library "$work/library" -o "$work/$task.gguf" >&2
figures=()
for figure in "$@"; do figures+=(--figure "$figure"); done
python3 "$SMOA_ROOT/scripts/train/card.py" --task "$task" --report "$peft/report.json" --out "$work/$task.toml" \
  ${figures[@]+"${figures[@]}"}
mv "$work/$task.gguf" "$work/$task.toml" "$to/"
say "$to/$task.gguf"
