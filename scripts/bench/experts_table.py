#!/usr/bin/env python3
"""Prints the tables of scripts/bench/experts.sh from its JSON files, in Markdown.

    scripts/bench/experts_table.py DIR
"""

import json
import sys
from pathlib import Path


def runs(path: Path, count: int) -> list:
    """The runs of a file, or so many times nothing."""
    return json.loads(path.read_text(encoding="utf-8"))["runs"] if path.is_file() else [None] * count


def shown(name, run):
    value = None if run is None else run["figures"].get(name)
    if value is None:
        return "-"
    return f"{value:.2f}" if name.startswith("mae") else f"{100 * value:.1f}"


def main():
    folder = Path(sys.argv[1])
    print("| task | rows | figure | base | base, 3 examples | adapter | auto | auto keeps | five mixed | random |")
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|---:|")
    formats, routes = [], []
    for path in sorted(folder.glob("*.own.json")):
        task = path.name.split(".")[0]
        own, none = runs(path, 2)
        (few,), (auto,) = runs(folder / f"{task}.shots.json", 1), runs(folder / f"{task}.auto.json", 1)
        mix, random = runs(folder / f"{task}.mixed.json", 2)
        for at, name in enumerate(list(own["figures"])[:3]):
            gain = own["figures"][name] - none["figures"][name]
            keeps = ""
            if at == 0 and auto and gain > 0:
                keeps = f"{100 * (auto['figures'][name] - none['figures'][name]) / gain:.0f} %"
            cells = [shown(name, run) for run in (none, few, own, auto)] + [keeps]
            cells += [shown(name, run) for run in (mix, random)]
            first = [task, str(len(own["rows"]))] if at == 0 else ["", ""]
            print("| " + " | ".join(first + [name] + cells) + " |")
        if auto:
            chosen = auto["adapters_used"]
            right = sum(n for adapters, n in chosen.items() if adapters.split("=")[0] == task)
            routes.append(f"| {task} | {right} of {len(auto['rows'])} |")
        held = folder / f"{task}.format.json"
        if held.is_file():
            bound, base = runs(held, 2)
            name = next(iter(own["figures"]))
            valid = next((k for k in ("valid", "runs", "parsed") if k in own["figures"]), "valid")
            format_ = json.loads(held.read_text(encoding="utf-8"))["format"]
            formats.append(
                f"| {task} | `{format_}` | {name} | {shown(name, own)} | {shown(name, bound)} | {shown(valid, own)} | "
                f"{shown(valid, bound)} | {shown(valid, none)} | {shown(valid, base)} |"
            )
    if formats:
        print("\n| task | format | figure | adapter | with format | valid | valid with format | base, valid | base, valid with format |")
        print("|---|---|---|---:|---:|---:|---:|---:|---:|")
        print("\n".join(formats))
    if routes:
        print("\n| task | routed to its adapter |\n|---|---:|")
        print("\n".join(routes))


if __name__ == "__main__":
    main()
