#!/usr/bin/env bash
# Measures formats on files of schemas, grammars and hostile inputs; prints tables, writes JSON.
#
#   scripts/bench/formats.sh --coverage FILE.jsonl [--json OUT] [--show]
#       schemas with instances (MaskBench, JSON-Schema-Test-Suite): per subset what compiles, which valid instances
#       are accepted and which invalid ones refused, why schemas are refused; times of compiling and of masks.
#       Ends with 1 if an invalid instance was accepted.
#   scripts/bench/formats.sh --bad FILE.jsonl [--json OUT]
#       hostile inputs, each in a process of its own: at most 1 s of CPU and 200 MB, never a signal
#   scripts/bench/formats.sh --fuzz N [--json OUT]
#       N schemas made by chance and by damage, what they accept held against an independent validator
#
#   scripts/bench/formats.sh --gbnf FILE.jsonl | --agree N | --masks | --fuzz-gbnf N [--json OUT]
#       grammars: see scripts/bench/formats_gbnf.sh --help
#   scripts/bench/formats.sh --e2e [SCHEMAS.jsonl] [--json OUT]
#       whole answers and the speed of constrained against free generation: the same script
#
#   --key-order any|schema   keys as requests have them by default, or in the order of the schema (with --coverage)
#   --seed N            other pairs, grammars or schemas than those of seed 0 (--agree, --fuzz, --fuzz-gbnf)
#   --model FILE.gguf   whose tokens the masks are for (default: the default model, if it is there; else single bytes)
set -euo pipefail
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
case ${1:-} in
  '' | -h | --help)
    sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac
case ${1:-} in
  --gbnf | --agree | --masks | --e2e) exec "$(dirname "${BASH_SOURCE[0]}")/formats_gbnf.sh" "$@" ;;
  --fuzz-gbnf)
    shift
    exec "$(dirname "${BASH_SOURCE[0]}")/formats_gbnf.sh" --fuzz "$@"
    ;;
esac
cargo_env
args=()
model=
while (($#)); do
  case $1 in
    --coverage | --bad | --json)
      args+=("$1" "$(absolute "${2:?$1 needs a file}")")
      shift 2
      ;;
    --model)
      model=$(absolute "${2:?$1 needs a file}")
      shift 2
      ;;
    *)
      args+=("$1")
      shift
      ;;
  esac
done
if [[ -z $model ]]; then
  for file in "$SMOA_MODEL_DIR"/*.gguf; do
    if [[ -e $file ]]; then model=$file; fi
  done
fi
if [[ -n $model ]]; then args+=(--model "$model"); fi
bench formats "${args[@]}"
