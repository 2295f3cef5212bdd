#!/usr/bin/env python3
"""Writes the card of an adapter: the TOML file that `smoa adapter add` reads beside a GGUF file.

    scripts/train/card.py --task sql --data DATA --report PEFT/report.json --out models/adapters/sql.toml
        [--figure exact=0.61]...

Facts come from tasks.toml and the report; example prompts are the first training rows of each kind, as the router sees
requests: system message and question. Tasks whose questions speak for themselves get some without the system message.
"""

from __future__ import annotations

import argparse
import json
import os
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
EXAMPLES = 24
LONGEST = 900
# The cards' tiers of train.py's; `light` is a LoRA small enough for the repository.
TIERS = {"ultralight": "ultralight", "light": "medium", "medium": "medium", "heavy": "heavy"}


def quoted(value) -> str:
    """A TOML value."""
    if isinstance(value, list):
        return "[" + ", ".join(quoted(v) for v in value) + "]"
    if isinstance(value, (float, int)):
        return repr(value)
    return json.dumps(str(value), ensure_ascii=False)


def prompts(path: Path, bare: bool) -> list[str]:
    out: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        system, user = (m["content"] for m in json.loads(line)["messages"][:2])
        alone = bare and len(out) % 2 == 1
        text = user if alone else f"{system}\n{user}"
        text = text.encode("utf-8")[:LONGEST].decode("utf-8", "ignore")
        if text not in out:
            out.append(text)
        if len(out) == EXAMPLES:
            break
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--task", required=True)
    p.add_argument("--data", type=Path, default=os.environ.get("SMOA_EXPERTS"))
    p.add_argument("--report", type=Path, help="report.json of train.py")
    p.add_argument("--figure", action="append", default=[], metavar="NAME=NUMBER")
    p.add_argument("--out", type=Path, required=True)
    args = p.parse_args()
    tasks = tomllib.loads((HERE / "tasks.toml").read_text(encoding="utf-8"))
    if args.task not in tasks:
        p.error(f"--task {args.task}: not in tasks.toml")
    if not args.data:
        p.error("--data is needed")
    said = tasks[args.task]
    report = json.loads(args.report.read_text(encoding="utf-8")) if args.report else {}
    kind = report.get("kind", "lora")
    card = {
        "title": said["title"],
        "description": said["description"],
        "specialization": "task",
        "tier": TIERS[report.get("tier", "light").split("-")[0]],
        "path": said["path"],
        "tags": said["tags"] + (["share-alike"] if said.get("share_alike") else []),
        "domains": said["domains"],
        "skills": said["skills"],
        "tasks": said["tasks"],
        "keywords": said["keywords"],
        "licence": said["data_licence"] if said.get("share_alike") else f"Apache-2.0; data {said['data_licence']}",
        "origin": f"trained by scripts/train/train.py on {said['source']}, {said['data_licence']}",
        "examples": prompts(args.data / args.task / "train.jsonl", said.get("bare", False)),
    }
    if said.get("default_format"):
        card["default_format"] = said["default_format"]
    lines = ["format = 1"] + [f"{key} = {quoted(value)}" for key, value in card.items()]
    figures = dict(pair.split("=", 1) for pair in args.figure)
    evaluation = {name: float(number) for name, number in figures.items()}
    if report:
        evaluation["dev_loss"] = report["dev_loss"]
        lines += ["", "[attributes]", 'base = "SmolLM2-135M-Instruct"', f'training = "{kind}, rank {report["rank"]}, '
                  f'layers {report["first"]} and up, {report["steps"]} steps of {report["batch"]} rows, seed {report["seed"]}"']
    if evaluation:
        lines += ["", "[evaluation]"] + [f"{name} = {number!r}" for name, number in evaluation.items()]
    text = "\n".join(lines).replace('"], "', '"],\n"') + "\n"
    args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
