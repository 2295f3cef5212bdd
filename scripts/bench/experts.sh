#!/usr/bin/env bash
# What the starter library is worth: for each task the plain base (as it is, with three examples, and both again held to the
# task's format or labels), the task's adapter (as it is called, and without its card's format), the router's choice, up
# to five adapters mixed evenly, and a random adapter.
#
#   scripts/bench/experts.sh --data DATA --out DIR [--limit N] [--parts "own shots held auto mixed"] [TASK]...
#
# DATA/TASK/dev.jsonl are the rows asked (the first N), DATA/TASK/train.jsonl gives the examples. Tasks: all adapters of
# models/adapters. DIR gets TASK.KIND.json of `smoa eval` and table.md; what is there is not run again.
# Environment: PYTHON, one with gguf and numpy (for the random adapter); SMOA_BIN, the program, built when not given.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
data=${SMOA_EXPERTS:-} out='' limit=() tasks=() parts='own shots held auto mixed'
while (($#)); do
  case $1 in
    -h | --help)
      sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit
      ;;
    --data) data=$2 && shift ;;
    --out) out=$2 && shift ;;
    --limit) limit=(--limit "$2") && shift ;;
    --parts) parts=$2 && shift ;;
    *) tasks+=("$1") ;;
  esac
  shift
done
[[ -d $data && -n $out ]] || die "--data and --out are needed; see --help"
cards=$SMOA_ROOT/models/adapters
if ((${#tasks[@]} == 0)); then
  for file in "$cards"/*.gguf; do tasks+=("$(basename "$file" .gguf)"); done
fi
[[ -n ${SMOA_DEFAULT_MODEL:-} ]] || fetch_model
[[ -n ${SMOA_BIN:-} ]] || build_release
starter_library
mkdir -p "$out"
random=$out/random-1.gguf
[[ -f $random ]] || "${PYTHON:-python3}" "$SMOA_ROOT/scripts/bench/random_lora.py" "$SMOA_DEFAULT_MODEL" "$out" \
  --count 1 --rank 4 >&2

# The metric and most tokens of an answer: more than any right answer has.
metric() { sed -n "/^\[$1\]/,/^metric/s/^metric = \"\(.*\)\"/\1/p" "$SMOA_ROOT/scripts/train/tasks.toml"; }
longest() { case $1 in label) echo 24 ;; sql | chrf) echo 64 ;; cypher) echo 128 ;; *) echo 96 ;; esac; }

# form TASK: the format that holds an answer to the task's form: its card's, or one of the labels; none for free text.
form() {
  local named
  named=$(sed -n 's/^default_format = "\(.*\)"/\1/p' "$cards/$1.toml")
  [[ -n $named || $(metric "$1") != label ]] || named=$(python3 -c 'import json, sys
print("choice(%s)" % ", ".join(sorted({json.loads(l)["messages"][-1]["content"] for l in open(sys.argv[1])})))' "$data/$1/train.jsonl")
  echo "$named"
}

# eval_to NAME ARGUMENT...: one call of `smoa eval` for $task, its table on stderr.
eval_to() {
  local to=$out/$task.$1.json
  shift
  [[ -f $to ]] && return
  "$SMOA_BIN" eval -m "$SMOA_DEFAULT_MODEL" --library "$SMOA_STARTER" --task "$data/$task/dev.jsonl" \
    --metric "$kind" -n "$(longest "$kind")" ${limit[@]+"${limit[@]}"} --json "$to.part" "$@" >&2
  mv "$to.part" "$to"
}

# mix_of TASK: it and the four adapters after it, evenly.
mix_of() {
  local all=("$cards"/*.gguf) mix=$1=0.2 at=0 i
  for ((i = 0; i < ${#all[@]}; i++)); do [[ ${all[i]} == */$1.gguf ]] && at=$i; done
  for ((i = 1; i <= 4 && i < ${#all[@]}; i++)); do mix+="+$(basename "${all[(at + i) % ${#all[@]}]}" .gguf)=0.2"; done
  echo "$mix"
}

# What matters most comes first for every task, so that a run that is cut short leaves a table.
for part in $parts; do
  for task in "${tasks[@]}"; do
    kind=$(metric "$task")
    format=$(form "$task")
    examples=(--shots 3 --shots-from "$data/$task/train.jsonl")
    say "$task ($kind): $part"
    case $part in
      own) eval_to own --adapter "$task" --adapter none ;;
      shots) eval_to shots --adapter none "${examples[@]}" ;;
      held)
        [[ -n $format ]] || continue
        eval_to free --adapter "$task" --format none
        eval_to held --adapter "$task" --adapter none --format "$format"
        eval_to held-shots --adapter none --format "$format" "${examples[@]}"
        ;;
      auto) eval_to auto --adapter auto ;;
      mixed) eval_to mixed --adapter "$(mix_of "$task")" --adapter "$random" ;;
    esac
  done
done
python3 "$SMOA_ROOT/scripts/bench/experts_table.py" "$out" | tee "$out/table.md"
