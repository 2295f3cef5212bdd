#!/usr/bin/env python3
"""Prints the tables of scripts/bench/experts.sh from its JSON files, in Markdown.

    scripts/bench/experts_table.py DIR
"""

import json
import sys
from pathlib import Path


def load(path):
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def shown(name, value):
    if value is None:
        return "-"
    return f"{value:.2f}" if name.startswith("mae") else f"{100 * value:.1f}"


def main():
    folder = Path(sys.argv[1])
    print("| task | rows | figure | base | base, 3 examples | adapter | auto | auto keeps | five mixed | random |")
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|---:|")
    formats, routes = [], []
    for path in sorted(folder.glob("*.plain.json")):
        task = path.name.split(".")[0]
        plain = load(path)
        runs = plain["runs"]
        own, auto, none, mix, random = (run["figures"] for run in runs)
        shots = load(folder / f"{task}.shots.json")
        few = shots["runs"][0]["figures"] if shots else {}
        for at, name in enumerate(own):
            if at > 2:
                break
            gain = own[name] - none[name]
            keeps = f"{100 * (auto[name] - none[name]) / gain:.0f} %" if at == 0 and gain > 0 else ""
            cells = [shown(name, f.get(name)) for f in (none, few, own, auto)]
            cells += [keeps] + [shown(name, f.get(name)) for f in (mix, random)]
            first = [task, str(plain["rows"])] if at == 0 else ["", ""]
            print("| " + " | ".join(first + [name] + cells) + " |")
        chosen = runs[1]["adapters_used"]
        right = sum(n for adapters, n in chosen.items() if adapters.split("=")[0] == task)
        routes.append(f"| {task} | {right} of {plain['rows']} | " + ", ".join(f"{a or 'base'} {n}" for a, n in chosen.items()) + " |")
        held = load(folder / f"{task}.format.json")
        if held:
            free = runs[0]
            bound, base = held["runs"]
            name = next(iter(own))
            valid = lambda f: next((v for k, v in f.items() if k in ("valid", "runs", "parsed")), None)  # noqa: E731
            formats.append(
                f"| {task} | `{held['format']}` | {name} | {shown(name, free['figures'][name])} | "
                f"{shown(name, bound['figures'][name])} | {shown('', valid(free['figures']))} | "
                f"{shown('', valid(bound['figures']))} | {shown('', valid(base['figures']))} |"
            )
    if formats:
        print("\n| task | format | figure | adapter | with format | valid | valid with format | base, valid with format |")
        print("|---|---|---|---:|---:|---:|---:|---:|")
        print("\n".join(formats))
    if routes:
        print("\n| task | routed to it | all choices |\n|---|---:|---|")
        print("\n".join(routes))


if __name__ == "__main__":
    main()
