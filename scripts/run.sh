#!/usr/bin/env bash
# From a fresh checkout to an answer: tools, model, build, then one `smoa run`.
#
#   scripts/run.sh                         classifies the mood of a sentence (format "sentiment")
#   scripts/run.sh "Three uses of a brick" answers as a list (format "markdown-list")
#   scripts/run.sh "..." -- --temp 0.7     everything after -- goes to smoa as it is
#
# The answer alone is on stdout; stdin is not read (`smoa run` itself takes it as content).
# Environment: SMOA_FORMAT=NAME takes another format, SMOA_FORMAT= none; SMOA_MODEL=FILE another model;
# see scripts/lib.sh for the rest.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# quoted WORD...: the words as one line to copy into a shell
quoted() {
  local word line='' tick="'" escaped="'\\''"
  for word; do
    case $word in
      '' | *[!A-Za-z0-9_./:=,+@-]*) word="'${word//$tick/$escaped}'" ;;
    esac
    line="$line $word"
  done
  echo "${line# }"
}

usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

prompt=
format=${SMOA_FORMAT-sentiment}
given=0
while (($#)); do
  case $1 in
    -h | --help)
      usage
      exit
      ;;
    --)
      shift
      break
      ;;
    *)
      ((given == 0)) || {
        say "one PROMPT only (put it in quotes); options for smoa go after --"
        exit 2
      }
      prompt=$1 given=1
      format=${SMOA_FORMAT-markdown-list}
      shift
      ;;
  esac
done
((given)) || prompt="Is this review positive, negative or neutral? \"I loved every minute of this film and told all my friends.\""

step "tools" need_tools
if [[ -n ${SMOA_MODEL:-} ]]; then
  model=$SMOA_MODEL
else
  step "model" fetch_model
  model=$SMOA_DEFAULT_MODEL
fi
step "build" build_release

command=("$SMOA_BIN" run -m "$model" ${format:+--format "$format"} "$@" "$prompt")
say "$(quoted "${command[@]}")"
start=$(now_ms)
status=0
"${command[@]}" </dev/null || status=$?
say "answer: $(seconds $(($(now_ms) - start)))"
exit "$status"
