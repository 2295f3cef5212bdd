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


def keeps(part, whole, base):
    """How much of a gain is kept, as a share."""
    return f"{100 * (part - base) / (whole - base):.0f} %" if whole > base else "-"


def main():
    folder = Path(sys.argv[1])
    print("| task | rows | figure | base | base, 3 examples | base, held | base, held, 3 examples | adapter | auto | auto keeps "
          "| five mixed | random |")
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    formats, routes = [], []
    for path in sorted(folder.glob("*.own.json")):
        task = path.name.split(".")[0]
        one = lambda kind: runs(folder / f"{task}.{kind}.json", 1)[0]  # noqa: E731
        own, none = runs(path, 2)
        few, auto, free, held_few = one("shots"), one("auto"), one("free"), one("held-shots")
        held, held_none = runs(folder / f"{task}.held.json", 2)
        mix, random = runs(folder / f"{task}.mixed.json", 2)
        for at, name in enumerate(list(own["figures"])[:3]):
            cells = [shown(name, run) for run in (none, few, held_none, held_few, own, auto)]
            kept = at == 0 and auto is not None
            cells.append(keeps(*(run["figures"][name] for run in (auto, own, none))) if kept else "")
            cells += [shown(name, run) for run in (mix, random)]
            first = [task, str(len(own["rows"]))] if at == 0 else ["", ""]
            print("| " + " | ".join(first + [name] + cells) + " |")
        if auto:
            right = sum(n for adapters, n in auto["adapters_used"].items() if adapters.split("=")[0] == task)
            routes.append(f"| {task} | {right} of {len(auto['rows'])} |")
        if held:
            name = next(iter(own["figures"]))
            valid = next((k for k in ("valid", "runs", "known") if k in own["figures"]), "valid")
            form = json.loads((folder / f"{task}.held.json").read_text(encoding="utf-8"))["format"]
            form = form if len(form) < 40 else form.split("(")[0] + " of the labels"
            cells = [shown(name, run) for run in (free, held)] + [shown(valid, run) for run in (free, held, none, held_none)]
            formats.append(f"| {task} | {form} | {name} | " + " | ".join(cells) + " |")
    if formats:
        print("\n| task | format | figure | adapter without | adapter with | valid without | valid with | base, valid without "
              "| base, valid with |")
        print("|---|---|---|---:|---:|---:|---:|---:|---:|")
        print("\n".join(formats))
    if routes:
        print("\n| task | routed to its adapter |\n|---|---:|")
        print("\n".join(routes))


if __name__ == "__main__":
    main()
