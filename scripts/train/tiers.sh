#!/usr/bin/env bash
# Tiers against each other: kinds of adapters and ranks on the same rows, seeds in turns, scored on the development rows.
#
#   scripts/train/tiers.sh --data DATA --out DIR [--seeds "1 2"] [--tiers "ultralight light ..."] [TASK]... [-- FLAGS of train.py]
#
# DIR gets a PEFT folder for each run, TASK.tiers.json of `smoa eval`, and a table. Environment: PYTHON, one with
# requirements.lock installed; SMOA_BIN, the program, built when not given.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
out='' seeds='1 2' tasks=()
tiers='ultralight ultralight-both light medium-lora medium heavy-lora heavy'
while (($#)); do
  case $1 in
    -h | --help)
      sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit
      ;;
    --data) export SMOA_EXPERTS=$2 && shift ;;
    --out) out=$2 && shift ;;
    --seeds) seeds=$2 && shift ;;
    --tiers) tiers=$2 && shift ;;
    --)
      shift
      break
      ;;
    *) tasks+=("$1") ;;
  esac
  shift
done
flags=("$@")
[[ -d ${SMOA_EXPERTS:-} && -n $out ]] || die "--data and --out are needed; see --help"
((${#tasks[@]})) || tasks=(classify banking)
here=$SMOA_ROOT/scripts/train
[[ -n ${SMOA_DEFAULT_MODEL:-} ]] || fetch_model
[[ -n ${SMOA_BIN:-} ]] || build_release
library=$out/library
for task in "${tasks[@]}"; do
  rm -rf "$library"
  runs=()
  for seed in $seeds; do
    for tier in $tiers; do
      name=$task-$tier-$seed
      [[ -f $out/$name/report.json ]] || "${PYTHON:-python3}" "$here/train.py" --task "$task" --tier "$tier" --seed "$seed" \
        --out "$out/$name" ${flags[@]+"${flags[@]}"}
      run=
      for folder in "$out/$name" "$out/$name/soft"; do
        [[ -f $folder/adapter_config.json ]] || continue
        as=$name
        [[ $folder == */soft ]] && as=$name-soft
        "$SMOA_BIN" adapter add "$folder" --name "$as" --library "$library" -m "$SMOA_DEFAULT_MODEL" >&2
        run+=${run:++}$as
      done
      runs+=(--adapter "$run")
    done
  done
  metric=$(sed -n "/^\[$task\]/,/^metric/s/^metric = \"\(.*\)\"/\1/p" "$here/tasks.toml")
  "$SMOA_BIN" eval -m "$SMOA_DEFAULT_MODEL" --library "$library" --task "$SMOA_EXPERTS/$task/dev.jsonl" --metric "$metric" \
    -n 48 "${runs[@]}" --json "$out/$task.tiers.json"
  "$SMOA_BIN" adapter ls --json --library "$library" >"$out/$task.tiers.sizes.jsonl"
done
python3 - "$out" "${tasks[@]}" <<'PY'
import json, sys
from collections import defaultdict
from pathlib import Path

out = Path(sys.argv[1])
print("| task | tier | rank | main figure, by seed | mean | bytes | parameters | seconds |")
print("|---|---|---:|---|---:|---:|---:|---:|")
for task in sys.argv[2:]:
    runs = json.loads((out / f"{task}.tiers.json").read_text())["runs"]
    sizes = {}
    for line in (out / f"{task}.tiers.sizes.jsonl").read_text().splitlines():
        one = json.loads(line)
        sizes[one["name"]] = one["bytes"]
    rows = defaultdict(list)
    for run in runs:
        names = run["adapter"].split("+")
        tier = names[0].removeprefix(f"{task}-").rsplit("-", 1)[0]
        folder = out / names[0].removesuffix("-soft")
        report = json.loads((folder / "report.json").read_text())
        name, value = next(iter(run["figures"].items()))
        rows[tier].append((name, value, sum(sizes[n] for n in names), report))
    for tier, found in rows.items():
        values = [100 * v for _, v, _, _ in found]
        report = found[0][3]
        print(f"| {task} | {tier} | {report['rank']} | {found[0][0]} " + ", ".join(f"{v:.1f}" for v in values)
              + f" | {sum(values) / len(values):.1f} | {found[0][2]} | {report['parameters']} | "
              f"{sum(r['seconds'] for *_, r in found) / len(found):.0f} |")
PY
