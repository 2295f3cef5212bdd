#!/usr/bin/env bash
# A library with one nano adapter for each label, its exemplars as example prompts; trained, then asked about every
# line of the test file. Lines are {"text": .., "label": ..}; the label `oos` means that no adapter fits.
#
#   scripts/bench/routing.sh --train FILE.jsonl --test FILE.jsonl [--exemplars K] [--seed S] [--distractors N]
#       [--embedder static|minilm|cascade] [--encoder GGUF] [--held-out LABELS.json] [--domains FILE.json] [--oos-share P] [--json OUT] [--dir DIR] [--memo FILE]
#
# --train and --test may be repeated (a merged library). --exemplars 0: names alone; without it: all of them.
# --held-out: labels that get no adapter, so that their lines should get none. --domains: {label: domain}, for the
# strategies that look at paths and tags. --encoder: the GGUF of minilm and cascade, made by scripts/models/minilm.sh
# [default: models/all-MiniLM-L6-v2.Q8_0.gguf]. Draws are numpy's RandomState(seed).permutation for each label, sorted.
# --memo: the encoder's vectors of training texts are kept in this file between runs. --dir: the library stays there.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
case ${1:-} in
  -h | --help)
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac
cargo_env
args=()
path=
for arg in "$@"; do
  # The program runs in the repository's root: paths are made whole.
  if [[ -n $path && $arg != /* ]]; then arg=$PWD/$arg; fi
  path=
  case $arg in
    --train | --test | --held-out | --domains | --encoder | --json | --dir | --memo) path=1 ;;
  esac
  args+=("$arg")
done
bench routing_eval "${args[@]}"
