#!/usr/bin/env bash
# Pairs of adapters of the starter library on the first one's task: alone, side by side with weights, and merged into one.
#
#   scripts/bench/interference.sh --data DATA --out DIR [--limit N] A+B...     pairs: json-extract+banking banking+json-extract
#
# Environment: SMOA_BIN, the program, built when not given; see scripts/lib.sh for the rest.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
data=${SMOA_EXPERTS:-} out='' limit=() pairs=()
while (($#)); do
  case $1 in
    -h | --help)
      sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit
      ;;
    --data) data=$2 && shift ;;
    --out) out=$2 && shift ;;
    --limit) limit=(--limit "$2") && shift ;;
    *) pairs+=("$1") ;;
  esac
  shift
done
[[ -d $data && -n $out ]] || die "--data and --out are needed; see --help"
((${#pairs[@]})) || pairs=(json-extract+banking banking+json-extract)
[[ -n ${SMOA_DEFAULT_MODEL:-} ]] || fetch_model
[[ -n ${SMOA_BIN:-} ]] || build_release
mkdir -p "$out"
library=$out/interference-library
rm -rf "$library"
"$SMOA_BIN" adapter add "$SMOA_ROOT/models/adapters" --library "$library" -m "$SMOA_DEFAULT_MODEL" >&2
for pair in "${pairs[@]}"; do
  a=${pair%+*} b=${pair#*+}
  metric=$(sed -n "/^\[$a\]/,/^metric/s/^metric = \"\(.*\)\"/\1/p" "$SMOA_ROOT/scripts/train/tasks.toml")
  runs=(--adapter "$a" --adapter "$a=0.5" --adapter "$a+$b" --adapter "$a=0.5+$b=0.5")
  for method in concat svd ties dare; do
    name=$a-$b-$method
    "$SMOA_BIN" adapter merge "$a" "$b" --weights 0.5,0.5 --method "$method" --name "$name" --library "$library" \
      -m "$SMOA_DEFAULT_MODEL" >&2
    runs+=(--adapter "$name")
  done
  say "$pair on the rows of $a"
  "$SMOA_BIN" eval -m "$SMOA_DEFAULT_MODEL" --library "$library" --task "$data/$a/dev.jsonl" --metric "$metric" -n 96 \
    ${limit[@]+"${limit[@]}"} --json "$out/$a-$b.pair.json" "${runs[@]}"
done
