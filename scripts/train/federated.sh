#!/usr/bin/env bash
# Federated training against central: the rows of a task are split over three clients, each trains alone, and their
# adapters are averaged exactly (stacked), then cut to the rank of one. All are scored on the development rows.
#
#   scripts/train/federated.sh --data DATA --out DIR [--limit N] [TASK] [FLAG of train.py]...      TASK: legal
# N: only the first development rows are asked. What has a report in DIR is not trained again.
#
# Environment: PYTHON, one with requirements.lock installed; SMOA_BIN, the program, built when not given.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
out='' task=legal flags=() limit=()
while (($#)); do
  case $1 in
    -h | --help)
      sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit
      ;;
    --data) export SMOA_EXPERTS=$2 && shift ;;
    --out) out=$2 && shift ;;
    --limit) limit=(--limit "$2") && shift ;;
    -*) flags+=("$1" "$2") && shift ;;
    *) task=$1 ;;
  esac
  shift
done
[[ -d ${SMOA_EXPERTS:-} && -n $out ]] || die "--data and --out are needed; see --help"
here=$SMOA_ROOT/scripts/train
[[ -n ${SMOA_DEFAULT_MODEL:-} ]] || fetch_model
[[ -n ${SMOA_BIN:-} ]] || build_release
if ((${#flags[@]} == 0)); then
  read -ra flags <<<"$(sed -n "/^\[$task\]/,/^metric/s/^train = \"\(.*\)\"/\1/p" "$here/tasks.toml")"
fi
metric=$(sed -n "/^\[$task\]/,/^metric/s/^metric = \"\(.*\)\"/\1/p" "$here/tasks.toml")
library=$out/library
rm -rf "$library"
parts=() weights=()
for part in 1/3 2/3 3/3 central; do
  name=$task-${part%/*}
  [[ $part == central ]] && share=() || share=(--part "$part")
  [[ -f $out/$name/report.json ]] ||
    "${PYTHON:-python3}" "$here/train.py" --task "$task" --out "$out/$name" "${flags[@]}" ${share[@]+"${share[@]}"}
  "$SMOA_BIN" adapter add "$out/$name" --name "$name" --library "$library" -m "$SMOA_DEFAULT_MODEL"
  [[ $part == central ]] && continue
  parts+=("$name")
  weights+=("$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["rows"])' "$out/$name/report.json")")
done
joined=$(IFS=, && echo "${weights[*]}")
rank=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["rank"])' "$out/$task-1/report.json")
merge() { "$SMOA_BIN" adapter merge "${parts[@]}" --federated --weights "$joined" --library "$library" -m "$SMOA_DEFAULT_MODEL" "$@"; }
merge --name "$task-stacked"
merge --name "$task-cut" --rank "$rank"
"$SMOA_BIN" eval -m "$SMOA_DEFAULT_MODEL" --library "$library" --task "$SMOA_EXPERTS/$task/dev.jsonl" --metric "$metric" -n 96 \
  ${limit[@]+"${limit[@]}"} \
  --adapter "$task-central" --adapter "$task-stacked" --adapter "$task-cut" --adapter "${parts[0]}" --adapter "${parts[1]}" \
  --adapter "${parts[2]}" --adapter none --json "$out/$task.federated.json"
