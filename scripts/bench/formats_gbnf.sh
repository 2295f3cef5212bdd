#!/usr/bin/env bash
# Measures GBNF formats: correctness on lists of texts, agreement with llama.cpp, masks, fuzzing, whole answers.
#
#   scripts/bench/formats_gbnf.sh --gbnf FILE.jsonl [--json OUT]
#       rows {id, kind: "grammar", text, pass, fail}: texts that must be accepted and refused
#   scripts/bench/formats_gbnf.sh --agree N [--json OUT]
#       N pairs of random safe grammar and text, token by token against llama.cpp's grammar sampler
#   scripts/bench/formats_gbnf.sh --masks [--texts FORMAT FILE.jsonl]... [--json OUT]
#       time of masks of the ready formats, on random answers or on given ones (lines of JSON strings)
#   scripts/bench/formats_gbnf.sh --fuzz N [--json OUT]
#       N grammars made by chance and by damage; 1000000 takes some minutes
#   scripts/bench/formats_gbnf.sh --e2e [SCHEMAS.jsonl] [--json OUT] [--limit TOKENS] [--seeds N] [--part K/N]
#       real answers under every schema, checked by the Python package `jsonschema`, then the speed of constrained
#       against free generation, in turns
#
#   --seed N            other pairs, grammars or schemas than those of seed 0 (--agree, --fuzz, --fuzz-gbnf)
#   --model FILE.gguf   whose tokens (default: the default model, if it is there; else single bytes)
set -euo pipefail
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
case ${1:-} in
  '' | -h | --help)
    sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac
cargo_env
args=() rest=()
model='' schemas='' json='' e2e=''
while (($#)); do
  case $1 in
    --gbnf)
      args+=("$1" "$(absolute "${2:?$1 needs a file}")")
      shift 2
      ;;
    --texts)
      args+=("$1" "${2:?$1 needs a format}" "$(absolute "${3:?$1 needs a file}")")
      shift 3
      ;;
    --json)
      json=$(absolute "${2:?$1 needs a file}")
      shift 2
      ;;
    --model)
      model=$(absolute "${2:?$1 needs a file}")
      shift 2
      ;;
    --e2e)
      e2e=1
      shift
      case ${1:-} in
        '' | --*) ;;
        *)
          schemas=$(absolute "$1")
          shift
          ;;
      esac
      ;;
    --limit | --seeds | --part | --answers | --parallel | --rounds)
      rest+=("$1" "${2:?$1 needs a number}")
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
if [[ -n $e2e ]]; then
  [[ -n $model ]] || {
    say "--e2e wants a model: scripts/run.sh fetches the default one, or give --model FILE.gguf"
    exit 2
  }
  build_release
  if [[ -n $json ]]; then rest+=(--json "$json"); fi
  exec python3 "$(dirname "${BASH_SOURCE[0]}")/formats_e2e.py" --smoa "$SMOA_BIN" --model "$model" \
    ${schemas:+--schemas "$schemas"} --speed "${rest[@]}"
fi
if [[ -n $model ]]; then args+=(--model "$model"); fi
if [[ -n $json ]]; then args+=(--json "$json"); fi
bench gbnf "${args[@]}"
