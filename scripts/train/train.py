#!/usr/bin/env python3
"""Trains one adapter for the default model.

    scripts/train/train.py --task banking --tier light --data DATA --out DIR

DATA holds NAME/train.jsonl and NAME/dev.jsonl (rows of `messages` and `meta`). DIR gets a PEFT folder (and SOFT/ beside
it where the tier has a soft prompt), with `report.json`: data, seed, losses, times.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import time
from pathlib import Path

import torch

from kit import base, data, presets
from kit.trunk import Trunk

HERE = Path(__file__).resolve().parent


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--task", required=True, help="a folder of --data")
    p.add_argument("--data", type=Path, default=os.environ.get("SMOA_EXPERTS"), help="folder of tasks [SMOA_EXPERTS]")
    p.add_argument("--model", type=Path, default=os.environ.get("SMOA_DEFAULT_MODEL"), help="GGUF [SMOA_DEFAULT_MODEL]")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--tier", default="light", help=", ".join(presets.PRESETS))
    p.add_argument("--epochs", type=float, default=2.0)
    p.add_argument("--batch", type=int, default=24, help="rows a step")
    p.add_argument("--rank", type=int)
    p.add_argument("--alpha", type=float)
    p.add_argument("--rate", type=float, help="highest learning rate")
    p.add_argument("--first", type=int, help="first adapted layer")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--rows", type=int, help="only the first rows of the training file")
    p.add_argument("--part", metavar="K/N", help="every N-th row from the K-th on: the share of one client of N")
    p.add_argument("--dev-rows", type=int, default=64, help="only the first rows of the development file (%(default)s)")
    p.add_argument("--where", metavar="REGEX", help="only rows whose question has a match")
    p.add_argument("--checks", type=int, default=4, help="looks at the development set; the best one is kept")
    p.add_argument("--patience", type=int, default=2, help="stop after so many looks without gain")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--device", default="auto")
    p.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32", "nf4"], help="of the frozen base")
    p.add_argument("--steps", type=int, help="stop after so many steps (a smoke run)")
    p.add_argument("--check", action="store_true", help="compare the fast pass with the model's own, and stop")
    args = p.parse_args()
    for flag in ("data", "model"):
        if not getattr(args, flag):
            p.error(f"--{flag} is needed")
        setattr(args, flag, Path(getattr(args, flag)))
    return args


def say(text: str):
    print(text, file=sys.stderr, flush=True)


@torch.no_grad()
def dev_loss(trunk: Trunk, rows, groups, size: int) -> float:
    """Mean loss of answer tokens, in nats."""
    total = count = 0.0
    for one in data.batches(rows, groups, size, None):
        losses = trunk.losses(rows, groups, one)
        total += float(losses.sum())
        count += len(losses)
    return total / count


def rate_at(step: int, steps: int, warm: int) -> float:
    """Linear warm-up, then a cosine down to a twentieth."""
    if step < warm:
        return (step + 1) / warm
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def check(model, trunk: Trunk, rows, groups):
    """The fast pass against the model's own, in 32 bits: the same losses."""
    worst = 0.0
    for one in data.batches(rows, groups, 4, None)[:4]:
        ours = trunk.losses(rows, groups, one)
        at = 0
        for i in one.rows:
            ids = torch.tensor([rows[i].prompt + rows[i].answer])
            n = len(rows[i].answer)
            logits = model(ids).logits[0, -n - 1 : -1].float()
            theirs = torch.nn.functional.cross_entropy(logits, ids[0, -n:], reduction="none")
            worst = max(worst, float((theirs - ours[at : at + n]).abs().max()))
            at += n
    say(f"largest difference of a token's loss: {worst:.2e}")


def train(args):
    torch.set_num_threads(args.threads)
    device = base.pick_device(args.device)
    dtype = torch.bfloat16 if args.dtype == "nf4" else getattr(torch, args.dtype)
    started = time.time()
    folder = args.data / args.task
    train_rows = data.read(folder / "train.jsonl", args.rows, args.where)
    dev_rows = data.read(folder / "dev.jsonl", args.dev_rows, args.where)
    if args.part:
        at, parts = (int(n) for n in args.part.split("/"))
        train_rows = train_rows[at - 1 :: parts]
    if not train_rows or not dev_rows:
        raise SystemExit(f"{folder}: no rows left")
    model, tokenizer = base.load(args.model, dtype)
    model = (base.to_nf4(model) if args.dtype == "nf4" else model).to(device)
    chosen = presets.preset(args.tier, rank=args.rank, alpha=args.alpha, rate=args.rate, first=args.first)
    rows, dev = data.tokenize(train_rows, tokenizer), data.tokenize(dev_rows, tokenizer)
    groups, dev_groups = data.group(rows, args.batch), data.group(dev, 64)
    ids = torch.tensor(rows[0].prompt, device=device)
    embedded = model.get_input_embeddings().weight[ids.repeat(1 + 64 // len(ids))]
    peft, soft = presets.attach(model, chosen, args.seed, embedded)
    inner = peft.get_base_model() if peft is not None else model
    trunk = Trunk(inner, 0 if soft is not None else chosen.first, soft)
    say(f"{args.task}: {len(rows)} rows in {len(groups)} groups, loaded in {time.time() - started:.0f} s")
    if args.check:
        if peft is not None:
            with torch.no_grad():
                for name, p in peft.named_parameters():
                    if p.requires_grad:
                        p.add_(torch.randn_like(p) * 0.02)
        trunk.keep(rows, groups)
        return check(inner, trunk, rows, groups)

    named = [(n, p) for n, p in (peft.named_parameters() if peft is not None else []) if p.requires_grad]
    if soft is not None:
        named.append(("soft", soft))
    params = [p for _, p in named]
    # A soft prompt moves faster than scales and matrices do.
    sets = [{"params": [p for n, p in named if n != "soft"], "lr": chosen.rate}]
    if soft is not None:
        sets.append({"params": [soft], "lr": chosen.rate if chosen.kind == "soft" else 5e-2})
    sets = [s for s in sets if s["params"]]
    optimizer = torch.optim.AdamW(sets, betas=(0.9, 0.99), weight_decay=0.0)
    highest = [s["lr"] for s in sets]
    rng = random.Random(args.seed)
    per_epoch = len(data.batches(rows, groups, args.batch, random.Random(0)))
    steps = max(1, round(args.epochs * per_epoch))
    warm = max(1, min(steps // 10, 20))
    looks = {max(1, round(steps * (k + 1) / args.checks)) for k in range(args.checks)}
    auto = torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16, cache_enabled=False)
    best, best_state, bad, log = math.inf, None, 0, []
    with auto:
        began = time.time()
        trunk.keep(rows, groups)
        trunk.keep(dev, dev_groups)
        say(f"frozen layers kept in {time.time() - began:.0f} s; {sum(p.numel() for p in params)} parameters, {steps} steps")
        began, seen, queue, running = time.time(), 0, [], None
        for step in range(steps):
            if not queue:
                queue = data.batches(rows, groups, args.batch, rng)
            one = queue.pop()
            for s, high in zip(optimizer.param_groups, highest):
                s["lr"] = high * rate_at(step, steps, warm)
            loss = trunk.losses(rows, groups, one).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(params, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            seen += len(one.ids)
            now = loss.item()
            running = now if running is None else 0.9 * running + 0.1 * now
            took = time.time() - began
            if (step + 1) % 5 == 0 or step == 0:
                say(f"{args.task} {step + 1}/{steps} loss {running:.3f} {seen / took:.0f} tokens/s "
                    f"{took:.0f} s, {took / (step + 1) * (steps - step - 1):.0f} s left")
            if step + 1 in looks or step + 1 == args.steps:
                now = dev_loss(trunk, dev, dev_groups, 48)
                log.append({"step": step + 1, "train": round(running, 4), "dev": round(now, 4), "seconds": round(took, 1)})
                say(f"{args.task} step {step + 1}: dev loss {now:.4f}")
                if now < best:
                    best, bad = now, 0
                    best_state = [p.detach().clone() for p in params]
                else:
                    bad += 1
                if bad >= args.patience or step + 1 == args.steps:
                    break
    with torch.no_grad():
        for p, kept in zip(params, best_state):
            p.copy_(kept)
    args.out.mkdir(parents=True, exist_ok=True)
    if peft is not None:
        peft.save_pretrained(str(args.out))
    if soft is not None:
        save_soft(args.out / "soft" if peft is not None else args.out, soft, model)
    report = {
        "task": args.task, "tier": args.tier, "kind": chosen.kind, "rank": chosen.rank, "alpha": chosen.alpha,
        "first": chosen.first, "soft": chosen.soft, "rate": chosen.rate, "epochs": args.epochs, "batch": args.batch,
        "seed": args.seed, "rows": len(rows), "where": args.where, "part": args.part, "parameters": sum(p.numel() for p in params),
        "steps": step + 1, "dev_loss": round(best, 4), "seconds": round(time.time() - began, 1),
        "tokens_per_second": round(seen / (time.time() - began), 1), "dtype": args.dtype, "log": log,
    }
    (args.out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    say(f"{args.task}: dev loss {best:.4f} after {report['seconds']:.0f} s -> {args.out}")


def save_soft(folder: Path, soft: torch.Tensor, model):
    """A PEFT prompt-tuning folder."""
    from peft import PromptTuningConfig
    from safetensors.torch import save_file

    config = PromptTuningConfig(
        num_virtual_tokens=len(soft), token_dim=soft.shape[1], num_transformer_submodules=1, num_layers=
        model.config.num_hidden_layers, num_attention_heads=model.config.num_attention_heads, task_type="CAUSAL_LM",
    )
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    save_file({"prompt_embeddings": soft.detach().float().contiguous()}, str(folder / "adapter_model.safetensors"))


if __name__ == "__main__":
    train(arguments())
