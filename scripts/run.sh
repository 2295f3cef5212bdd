#!/usr/bin/env bash
# From a fresh checkout to an answer: tools, model, build, adapters, then one `smoa run`.
#
#   scripts/run.sh                         a request into JSON; the router finds the adapter for it
#   scripts/run.sh "Three uses of a brick" your prompt; what no adapter is for, the plain model answers
#   scripts/run.sh "..." -- --temp 0.7     everything after -- goes to smoa as it is
#
# The answer alone is on stdout; stdin is not read (`smoa run` itself takes it as content).
# Environment: SMOA_FORMAT=NAME a format for the answer (without it, the one its adapter's card names); SMOA_MODEL=FILE
# another model, then without the starter adapters, which are for the default one; see scripts/lib.sh for the rest.
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
format=${SMOA_FORMAT-}
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
      shift
      ;;
  esac
done
if ((!given)); then
  prompt="Book a table for four at an Italian restaurant in Lisbon tomorrow at eight"
  set -- --system-prompt "Extract the intent and its slots from the request. Answer with one line of JSON. Intents: \
AddToPlaylist, BookRestaurant, GetWeather, PlayMusic, RateBook, SearchCreativeWork, SearchScreeningEvent." "$@"
fi

step "tools" need_tools
if [[ -n ${SMOA_MODEL:-} ]]; then
  model=$SMOA_MODEL
else
  step "model" fetch_model
  model=$SMOA_DEFAULT_MODEL
fi
step "build" build_release
adapters=()
if [[ -z ${SMOA_MODEL:-} ]]; then
  step "adapters" starter_library
  adapters=(--library "$SMOA_STARTER" --adapter auto -v)
fi

command=("$SMOA_BIN" run -m "$model" ${adapters[@]+"${adapters[@]}"} ${format:+--format "$format"} "$@" "$prompt")
say "$(quoted "${command[@]}")"
start=$(now_ms)
status=0
"${command[@]}" </dev/null || status=$?
say "answer: $(seconds $(($(now_ms) - start)))"
exit "$status"
