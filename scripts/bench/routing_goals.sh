#!/usr/bin/env bash
# Every row of the goal table of docs/routing.md on one folder of data, by scripts/bench/routing.sh and the bench
# routing_scale, and the table itself.
#
#   scripts/bench/routing_goals.sh --data DIR [--part dev] [--out DIR] [--encoder GGUF] [--distractors 1000000] [--only NAMES]
#
# DIR holds NAME.train.jsonl and NAME.PART.jsonl for clinc150, banking77, hwu64, snips and bbh27, and
# banking77.idoos_intents.json, clinc150.domains.json. --only: some of
# five twenty all names static near merged million scale (comma between them); what is in --out stays and is counted.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
data='' part=dev out=routing-goals encoder='' distractors=1000000 only=five,twenty,all,names,static,near,merged,million,scale
while [[ $# -gt 0 ]]; do
  case $1 in
    --data) data=$2 ;;
    --part) part=$2 ;;
    --out) out=$2 ;;
    --encoder) encoder=$2 ;;
    --distractors) distractors=$2 ;;
    --only) only=$2 ;;
    *)
      sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 2
      ;;
  esac
  shift 2
done
[[ -d $data ]] || { echo "routing_goals: give --data DIR" >&2; exit 2; }
mkdir -p "$out"
data=$(cd "$data" && pwd) out=$(cd "$out" && pwd)
minilm=(--embedder minilm --memo "$out/minilm.memo")
if [[ -n $encoder ]]; then minilm+=(--encoder "$encoder"); fi

wanted() { [[ ,$only, == *,$1,* ]]; }
# one NAME SET FLAGS..: what is asked of one set, into NAME.SET.json
one() {
  local name=$1 set=$2
  shift 2
  "$here/routing.sh" --train "$data/$set.train.jsonl" --test "$data/$set.$part.jsonl" "$@" --json "$out/$name.$set.json"
}
# merged NAME FLAGS..: all five sets at once
merged() {
  local name=$1 files=() set
  shift
  for set in clinc150 banking77 hwu64 snips bbh27; do
    files+=(--train "$data/$set.train.jsonl" --test "$data/$set.$part.jsonl")
  done
  "$here/routing.sh" "${files[@]}" "$@" --json "$out/$name.json"
}

for set in clinc150 banking77; do
  paths=()
  if [[ $set == clinc150 ]]; then paths=(--domains "$data/clinc150.domains.json"); fi
  if wanted five; then for seed in 0 1 2; do one "minilm5-$seed" "$set" --exemplars 5 --seed "$seed" "${minilm[@]}"; done; fi
  if wanted twenty; then one minilm20 "$set" --exemplars 20 "${minilm[@]}" "${paths[@]}"; fi
  if wanted all; then one minilm "$set" "${minilm[@]}"; fi
  if wanted names; then
    one names-minilm "$set" --exemplars 0 "${minilm[@]}"
    one names-static "$set" --exemplars 0
  fi
  if wanted static; then
    one static20 "$set" --exemplars 20 "${paths[@]}"
    one static "$set"
  fi
done
if wanted near; then one near banking77 --held-out "$data/banking77.idoos_intents.json" "${minilm[@]}"; fi
if wanted merged; then merged merged --exemplars 20 "${minilm[@]}"; fi
if wanted million; then
  merged merged-static --exemplars 20
  merged million --exemplars 20 --distractors "$distractors"
fi
if wanted scale; then
  # shellcheck source-path=SCRIPTDIR/.. source=lib.sh
  . "$here/../lib.sh"
  cargo_env
  bench routing_scale --entries "1000,10000,100000,$distractors" \
    --utterances "$data/clinc150.$part.jsonl" --utterances "$data/banking77.$part.jsonl" --json "$out/scale.json"
fi
python3 "$here/routing_goals.py" "$out"
