#!/usr/bin/env bash
# Personalisation: one adapter for each segment of customers beside a shared one, chosen by what a request says of itself.
#
#   scripts/train/segments.sh --data DATA --out DIR [--rows N] [FLAG of train.py]...
#
# The task is reviews, the segments are the two large divisions of the shop, General and General Petite. Each segment's
# adapter learns from N rows of its own (240), the shared one is models/adapters/reviews.gguf. All are scored on the
# development rows of both segments; then the router chooses, told `segment` as metadata, among the segments' adapters
# (attribute `segment` of their cards) and the rest of the starter library.
# Environment: PYTHON, one with requirements.lock installed; SMOA_BIN, the program, built when not given. EVALUATE=0: train only.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
out='' rows=240 flags=()
while (($#)); do
  case $1 in
    -h | --help)
      sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit
      ;;
    --data) export SMOA_EXPERTS=$2 ;;
    --out) out=$2 ;;
    --rows) rows=$2 ;;
    -*) flags+=("$1" "$2") ;;
    *) die "$1: what is that? See --help" ;;
  esac
  shift 2
done
[[ -d ${SMOA_EXPERTS:-} && -n $out ]] || die "--data and --out are needed; see --help"
here=$SMOA_ROOT/scripts/train cards=$SMOA_ROOT/models/adapters
[[ -n ${SMOA_DEFAULT_MODEL:-} ]] || fetch_model
[[ -n ${SMOA_BIN:-} ]] || build_release
((${#flags[@]})) || flags=(--dev-rows 100 --epochs 1 --batch 10 --first 18 --rank 6 --alpha 24 --checks 1)
mkdir -p "$out"
place() { case $1 in general) echo '\(General\)' ;; petite) echo '\(General Petite\)' ;; esac; }
for segment in general petite; do
  [[ -f $out/reviews-$segment/report.json ]] || "${PYTHON:-python3}" "$here/train.py" --task reviews \
    --out "$out/reviews-$segment" --rows "$rows" --where "$(place $segment)" "${flags[@]}"
done
[[ ${EVALUATE:-1} == 1 ]] || exit 0
python3 - "$SMOA_EXPERTS/reviews/dev.jsonl" "$out" <<'PY'
import json, sys
from pathlib import Path

files = {"(General)": "general", "(General Petite)": "petite"}
rows = [json.loads(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
both = []
for mark, segment in files.items():
    own = [row for row in rows if mark in row["messages"][-2]["content"].split("\nReview:")[0]]
    for row in own:
        row["meta"]["segment"] = segment
    both += own
    Path(sys.argv[2], f"{segment}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own), encoding="utf-8")
Path(sys.argv[2], "both.jsonl").write_text("".join(json.dumps(row) + "\n" for row in both), encoding="utf-8")
PY
library=$out/library
rm -rf "$library"
add() { "$SMOA_BIN" adapter add "$@" --library "$library" -m "$SMOA_DEFAULT_MODEL" >&2; }
add "$cards"
for segment in general petite; do
  add "$out/reviews-$segment" --name "reviews-$segment" --sidecar "$cards/reviews.toml" --attribute "segment=$segment"
done
score() {
  "$SMOA_BIN" eval -m "$SMOA_DEFAULT_MODEL" --library "$library" --metric json -n 48 --task "$out/$1.jsonl" \
    --json "$out/$1$2.segments.json" "${@:3}"
}
for segment in general petite; do
  score "$segment" '' --adapter reviews --adapter reviews-general --adapter reviews-petite
done
# From here on the shared adapter stands aside, so that only the segment tells the two apart.
"$SMOA_BIN" adapter rm reviews --library "$library" >&2
"$SMOA_BIN" adapter train-router "$cards/general.train.jsonl" --library "$library" >&2
score both -routed --adapter auto --route-meta segment
