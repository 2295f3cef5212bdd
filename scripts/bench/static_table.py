#!/usr/bin/env python3
"""How well the static table tells labels apart: centroids, nearest exemplar and logistic regression on its vectors, with
K exemplars per label, on lines {"text", "label"}. Label `oos` is left out. Needs numpy, scikit-learn, tokenizers."""

import argparse
import json
import struct

import numpy as np
from sklearn.linear_model import LogisticRegression
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers


def embedder(folder):
    with open(f"{folder}/static-256.bin", "rb") as file:
        data = file.read()
    rows, dim = struct.unpack("<II", data[8:16])
    scales = np.frombuffer(data, "<f4", rows, 16)
    table = np.frombuffer(data, np.int8, rows * dim, 16 + 4 * rows).reshape(rows, dim) * scales[:, None]
    with open(f"{folder}/vocabulary.txt", encoding="utf-8") as lines:
        ids = {token.rstrip("\n"): i for i, token in enumerate(lines)}
    words = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    words.normalizer, words.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()

    def embed(texts):
        sums = [table[e.ids].sum(0) for e in words.encode_batch_fast(texts, add_special_tokens=False)]
        return unit(np.array(sums, np.float32))

    return embed


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)


def read(path):
    with open(path, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    rows = [row for row in rows if row["label"] != "oos"]
    return [row["text"] for row in rows], np.array([row["label"] for row in rows])


def top(scores, right, k):
    return 100 * (np.argpartition(-scores, k - 1, axis=1)[:, :k] == right[:, None]).any(1).mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("--table", default="models/embed")
    parser.add_argument("--exemplars", type=int, nargs="*", default=[0, 1, 5, 20, 1000])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    embed = embedder(options.table)
    texts, labels = read(options.train)
    names, labels = np.unique(labels, return_inverse=True)
    tests, right = read(options.test)
    right = np.searchsorted(names, right)
    queries, vectors = embed(tests), embed(texts)
    for k in options.exemplars:
        if k == 0:
            scores = queries @ embed([name.replace("_", " ") for name in names]).T
            print(f"k = 0: names {top(scores, right, 1):.1f} / {top(scores, right, 5):.1f}")
            continue
        draw = np.random.RandomState(options.seed)
        chosen = np.concatenate([draw.permutation(np.flatnonzero(labels == i))[:k] for i in range(len(names))])
        x, y = vectors[chosen], labels[chosen]
        scores = queries @ unit(np.array([x[y == i].mean(0) for i in range(len(names))])).T
        line = f"k = {k}: centroid {top(scores, right, 1):.1f} / {top(scores, right, 5):.1f}"
        line += f", nearest exemplar {100 * (y[(queries @ x.T).argmax(1)] == right).mean():.1f}"
        if k >= 5:
            head = LogisticRegression(C=30, max_iter=300).fit(x, y)
            scores = head.decision_function(queries)
            line += f", logistic regression {top(scores, right, 1):.1f} / {top(scores, right, 5):.1f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
