"""Rows of a task file into tokens, and tokens into batches.

A row is `{"messages": [system, user, assistant], "meta": {...}}`. The prompt goes through the model's chat template;
only the answer and its end of turn are learnt.

Prompts of one task begin alike (the system message), so every group of rows has a *prefix* that is read once a step
instead of once a row. Rows are grouped by how they begin where that saves work (one schema, many questions).
"""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import torch

END = "<|im_end|>"
GROUP_LENGTHS = (0, 48, 64, 96, 128, 160)


@dataclass
class Row:
    prompt: list[int]
    answer: list[int]
    group: int = 0


@dataclass
class Group:
    """Rows that begin alike: `prefix` is the longest common beginning of their prompts."""

    prefix: list[int]
    rows: list[int] = field(default_factory=list)


@dataclass
class Batch:
    """Rows of one group, laid end to end.

    ids, positions: [tokens]; where: [rows * longest] the flat place of each padded place; back: [tokens] the padded
    place of each flat one; scored: flat places before each answer token; targets: those tokens.
    """

    group: int
    rows: list[int]
    lengths: list[int]
    ids: torch.Tensor
    positions: torch.Tensor
    where: torch.Tensor
    back: torch.Tensor
    scored: torch.Tensor
    targets: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        if self.ids.device == device:
            return self
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.type == "torch.Tensor"}
        return replace(self, **moved)


def read(path: Path, limit: int | None = None, where: str | None = None) -> list[dict]:
    """The rows of a file; `where` keeps those in whose question the expression has a match."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if where:
        rows = [row for row in rows if re.search(where, row["messages"][-2]["content"])]
    return rows[:limit]


def tokenize(rows: list[dict], tokenizer) -> list[Row]:
    end = tokenizer.convert_tokens_to_ids(END)
    out = []
    for row in rows:
        *asked, answer = row["messages"]
        text = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
        prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
        out.append(Row(prompt, tokenizer(answer["content"], add_special_tokens=False)["input_ids"] + [end]))
    return out


def common(prompts: list[list[int]]) -> int:
    """Length of the longest common beginning that leaves each prompt a token of its own."""
    low, high = min(prompts), max(prompts)
    n = 0
    most = min(len(p) for p in prompts) - 1
    while n < most and low[n] == high[n]:
        n += 1
    return n


def group(rows: list[Row], batch_rows: int) -> list[Group]:
    """Groups the rows so that a pass over them reads the fewest tokens; sets `row.group`."""
    best, least = [], None
    for length in GROUP_LENGTHS:
        by: dict[tuple, list[int]] = defaultdict(list)
        for i, row in enumerate(rows):
            by[tuple(row.prompt[:length])].append(i)
        groups, cost = [], 0
        for members in by.values():
            n = common([rows[i].prompt for i in members])
            groups.append(Group(rows[members[0]].prompt[:n], members))
            steps = -(-len(members) // batch_rows)
            cost += steps * n + sum(len(rows[i].prompt) + len(rows[i].answer) - 1 - n for i in members)
            cost += 64 * steps  # small steps are slow ones
        if least is None or cost < 0.97 * least:
            best, least = groups, cost
    for g, one in enumerate(best):
        for i in one.rows:
            rows[i].group = g
    return best


def batch(rows: list[Row], chosen: list[int], groups: list[Group]) -> Batch:
    g = rows[chosen[0]].group
    skip = len(groups[g].prefix)
    ids, positions, lengths, scored, targets = [], [], [], [], []
    for i in chosen:
        row = rows[i]
        start = len(ids)
        tokens = row.prompt[skip:] + row.answer[:-1]
        ids += tokens
        positions += range(skip, skip + len(tokens))
        lengths.append(len(tokens))
        first = start + len(row.prompt) - skip - 1
        scored += range(first, first + len(row.answer))
        targets += row.answer
    longest = max(lengths)
    where, back, start = [], [], 0
    for r, n in enumerate(lengths):
        # padding repeats the row's last token; nothing looks at it
        where += [start + min(t, n - 1) for t in range(longest)]
        back += range(r * longest, r * longest + n)
        start += n
    tensor = lambda values: torch.tensor(values, dtype=torch.long)  # noqa: E731
    return Batch(
        g, chosen, lengths, tensor(ids), tensor(positions), tensor(where), tensor(back), tensor(scored), tensor(targets)
    )


def batches(rows: list[Row], groups: list[Group], size: int, rng: random.Random | None) -> list[Batch]:
    """One pass over the rows: shuffled with `rng`, in order without."""
    out = []
    for one in groups:
        members = list(one.rows)
        if rng:
            rng.shuffle(members)
        steps = max(1, round(len(members) / size)) if rng else -(-len(members) // size)
        # parts of equal size, so that no step is left with two rows
        for s in range(steps):
            part = members[s * len(members) // steps : (s + 1) * len(members) // steps]
            if part:
                out.append(batch(rows, part, groups))
    if rng:
        rng.shuffle(out)
    return out
