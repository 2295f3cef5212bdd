#!/usr/bin/env bash
# Trains the starter library: every task of tasks.toml, one after the other, and publishes it to models/adapters.
#
#   scripts/train/all.sh --data DATA --out DIR [TASK]...     what has a report in DIR is not trained again
#
# DATA/TASK/{train,dev}.jsonl; DIR gets a PEFT folder for each task. On two shared CPU cores it takes about two hours.
# Environment: PYTHON, one with requirements.lock installed; see scripts/lib.sh for the rest.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
out='' tasks=()
while (($#)); do
  case $1 in
    -h | --help)
      sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit
      ;;
    --data) export SMOA_EXPERTS=$2 && shift ;;
    --out) out=$2 && shift ;;
    *) tasks+=("$1") ;;
  esac
  shift
done
[[ -d ${SMOA_EXPERTS:-} && -n $out ]] || die "--data and --out are needed; see --help"
here=$SMOA_ROOT/scripts/train
if ((${#tasks[@]} == 0)); then
  while read -r task; do tasks+=("$task"); done < <(sed -n 's/^\[\(.*\)\]$/\1/p' "$here/tasks.toml")
fi
[[ -n ${SMOA_DEFAULT_MODEL:-} ]] || fetch_model
[[ -n ${SMOA_BIN:-} ]] || build_release
export SMOA_BIN
for task in "${tasks[@]}"; do
  flags=$(sed -n "/^\[$task\]/,/^metric/s/^train = \"\(.*\)\"/\1/p" "$here/tasks.toml")
  [[ -n $flags ]] || die "$task: not in $here/tasks.toml"
  if [[ ! -f $out/$task/report.json ]]; then
    # shellcheck disable=SC2086
    "${PYTHON:-python3}" "$here/train.py" --task "$task" --out "$out/$task" $flags
  fi
  "$here/publish.sh" "$task" "$out/$task"
done
