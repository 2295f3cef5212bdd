"""A forward pass of llama-like models that does only what training an adapter needs.

- Rows lie end to end, without padding; attention alone sees them padded.
- The common prefix of a group is read once a step, with its gradient.
- Layers below the first adapted one never change: their outputs are worked out once and kept.
- Logits are worked out at the places of answer tokens only.

It runs the modules of the (PEFT) model themselves, so every kind of adapter that PEFT puts into linears works. A test
compares it with the model's own forward pass (`train.py --check`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .data import Batch, Group, Row, batches


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, dtype: torch.dtype) -> torch.Tensor:
    x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    return (x * weight).to(dtype)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x: [tokens, heads, width]; cos, sin: [tokens, 1, width]."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


class Trunk:
    """`model`: a transformers causal model of the llama family, perhaps with PEFT layers in it."""

    def __init__(self, model, first: int, soft: torch.nn.Parameter | None = None):
        config = model.config
        self.inner = model.model
        self.layers = list(self.inner.layers)
        self.first = first
        self.soft = soft
        self.eps = config.rms_norm_eps
        self.heads, self.kv = config.num_attention_heads, config.num_key_value_heads
        self.width = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.embedding = self.inner.embed_tokens.weight
        self.head = model.lm_head.weight
        self.dtype = self.embedding.dtype
        self.device = self.embedding.device
        theta = config.rope_parameters["rope_theta"]
        steps = torch.arange(0, self.width, 2, dtype=torch.float32) / self.width
        angles = torch.outer(torch.arange(1024, dtype=torch.float32), 1.0 / theta**steps)
        angles = torch.cat((angles, angles), -1)[:, None]
        self.cos, self.sin = angles.cos().to(self.device, self.dtype), angles.sin().to(self.device, self.dtype)
        self.kept: dict[int, torch.Tensor] = {}

    def block(self, layer, h, prefix: int, batch: Batch | None, cos, sin, mask):
        """h: [prefix + tokens, width] in 32 bits."""
        attn, mlp = layer.self_attn, layer.mlp
        x = rms_norm(h, layer.input_layernorm.weight, self.eps, self.dtype)
        q = rotate(attn.q_proj(x).view(-1, self.heads, self.width), cos, sin)
        k = rotate(attn.k_proj(x).view(-1, self.kv, self.width), cos, sin)
        v = attn.v_proj(x).view(-1, self.kv, self.width)
        share = self.heads // self.kv
        parts = []
        if prefix:
            grouped = q[:prefix].transpose(0, 1)[None]
            keys, values = (t[:prefix].transpose(0, 1).repeat_interleave(share, 0)[None] for t in (k, v))
            mixed = F.scaled_dot_product_attention(grouped, keys, values, is_causal=True)
            parts.append(mixed[0].transpose(0, 1).reshape(prefix, -1))
        if batch is not None:
            rows = len(batch.lengths)
            longest = len(batch.where) // rows
            # heads that share keys and values stand side by side as more queries: [rows, kv, share * longest, width]
            padded = q[prefix:][batch.where].view(rows, longest, self.kv, share, self.width)
            queries = padded.permute(0, 2, 3, 1, 4).reshape(rows, self.kv, share * longest, self.width)

            def along(t):
                own = t[prefix:][batch.where].view(rows, longest, self.kv, self.width).transpose(1, 2)
                if not prefix:
                    return own
                shared = t[:prefix].transpose(0, 1)[None].expand(rows, -1, -1, -1)
                return torch.cat((shared, own), 2)

            mixed = F.scaled_dot_product_attention(queries, along(k), along(v), attn_mask=mask)
            mixed = mixed.view(rows, self.kv, share, longest, self.width).permute(0, 3, 1, 2, 4)
            parts.append(mixed.reshape(rows * longest, -1)[batch.back])
        h = h + attn.o_proj(torch.cat(parts) if len(parts) > 1 else parts[0])
        x = rms_norm(h, layer.post_attention_layernorm.weight, self.eps, self.dtype)
        return h + mlp.down_proj(F.silu(mlp.gate_proj(x)) * mlp.up_proj(x))

    def run(self, h, first: int, last: int, prefix: int, batch: Batch):
        positions = torch.cat((torch.arange(prefix, device=self.device), batch.positions + self.soft_rows))
        cos, sin = self.cos[positions], self.sin[positions]
        longest = len(batch.where) // len(batch.lengths)
        mask = torch.ones(longest, prefix + longest, dtype=torch.bool, device=self.device).tril(prefix)
        mask = mask.repeat(self.heads // self.kv, 1)
        for layer in self.layers[first:last]:
            h = self.block(layer, h, prefix, batch, cos, sin, mask)
        return h

    @property
    def soft_rows(self) -> int:
        return 0 if self.soft is None else len(self.soft)

    def embed(self, ids) -> torch.Tensor:
        return F.embedding(torch.as_tensor(ids, device=self.device), self.embedding).float()

    def start(self, rows: list[Row], groups: list[Group], batch: Batch) -> tuple[torch.Tensor, int]:
        """What goes into the first layer that is run: [prefix + tokens, width]."""
        prefix = groups[batch.group].prefix
        parts = []
        if self.soft is not None:
            parts.append(self.soft.float())
        if self.first == 0 or ("prefix", id(groups), batch.group) not in self.kept:
            parts += [self.embed(prefix)] if prefix else []
            parts.append(self.embed(batch.ids))
        else:
            parts.append(self.kept["prefix", id(groups), batch.group].float())
            parts += [self.kept["row", id(rows), i].float() for i in batch.rows]
        return torch.cat(parts), len(prefix) + self.soft_rows

    @torch.no_grad()
    def keep(self, rows: list[Row], groups: list[Group], size: int = 32):
        """Works out and keeps the outputs of the layers below the first adapted one."""
        if self.first == 0 or self.soft is not None:
            return
        for one in batches(rows, groups, size, None):
            one = one.to(self.device)
            key = ("prefix", id(groups), one.group)
            known = self.kept.pop(key, None)
            h, prefix = self.start(rows, groups, one)
            h = self.run(h, 0, self.first, prefix, one).to(self.dtype)
            self.kept[key] = h[:prefix] if known is None else known
            at = prefix
            for i, n in zip(one.rows, one.lengths):
                self.kept["row", id(rows), i] = h[at : at + n].clone()
                at += n

    def losses(self, rows: list[Row], groups: list[Group], batch: Batch) -> torch.Tensor:
        """The loss of each answer token of the batch, in nats: [answer tokens]."""
        batch = batch.to(self.device)
        h, prefix = self.start(rows, groups, batch)
        kept = self.first if ("prefix", id(groups), batch.group) in self.kept else 0
        h = self.run(h, kept, len(self.layers), prefix, batch)
        x = rms_norm(h[prefix + batch.scored], self.inner.norm.weight, self.eps, self.dtype)
        return F.cross_entropy(F.linear(x, self.head).float(), batch.targets, reduction="none")
