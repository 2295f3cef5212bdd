#!/usr/bin/env python3
"""The goal table of docs/routing.md out of the files that routing_goals.sh wrote into a folder: goal, what was measured,
met or missed. A row whose files are not there says so."""

import json
import pathlib
import re
import statistics
import sys

folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "routing-goals")
SETS = ("clinc150", "banking77")


def read(name):
    path = folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def of_set(run, name, part="by_set"):
    """The strategies of one test file of a merged run."""
    return next((part["strategies"] for part in run.get(part) or [] if f"{name}." in part["test"]), [])


def best(strategies, *keys):
    """The learned router's figure where there is one, else the hybrid's."""
    by_name = {s["strategy"]: s for s in strategies}
    value = by_name.get("learned") or by_name.get("hybrid") or {}
    for key in keys:
        value = (value or {}).get(key)
    return value


def pair(name, key="top1"):
    runs = [read(f"{name}.{set}") for set in SETS]
    return [best(run["strategies"], key) if run else None for run in runs]


def mean(names, key="top1"):
    values = [pair(name, key) for name in names]
    return [statistics.mean(v) if all(x is not None for x in v) else None for v in zip(*values)]


def show(values):
    return " / ".join("-" if v is None else f"{v:.4g}" for v in values)


ROWS = []


def row(number, what, goals, values, less=False):
    """A row; `less`: smaller is better. Values that are missing make it open."""
    if any(v is None for v in values):
        state = "not measured"
    else:
        met = [v <= g if less else v >= g for v, g in zip(values, goals)]
        state = "met" if all(met) else "missed" if not any(met) else "partly"
    ROWS.append((number, what, show(goals), show(values), state))


def index_rows(scale):
    """Rows about the index alone: the largest number of adapters."""
    big = scale[-1] if scale else {}

    def of(key, name):
        found = re.search(rf"{re.escape(name)} ([0-9.]+)", big.get(key, ""))
        return float(found.group(1)) if found else None

    n = big.get("entries", 0)
    ms = [of(f"{kind}/both", p) for kind in ("wish", "utterance") for p in ("p50", "p99")]
    row(13, f"search at {n:,}, words too, p50 / p99 ms: wishes, utterances", [0.4, 0.9] * 2,
        [v and v / 1e3 for v in ms], less=True)
    row(13, "p50 as a share of a full scan: wishes, utterances", [0.018] * 2,
        [v and v / big["scan_us"] for v in (ms[0], ms[2])], less=True)
    row(13, "recall@10: wishes, utterances", [0.95, 0.90], [of(f"{k}/vectors", "recall@10") for k in ("wish", "utterance")])
    row(16, "the index alone: file MB, opening ms", [450, 20],
        [big.get("file_bytes", 0) / 1e6, big.get("open_ms")] if big else [None] * 2, less=True)
    row(17, "add, remove visible at the index, p50 ms", [20, 20],
        [big.get("add_us", 0) / 1e3, big.get("remove_us", 0) / 1e3] if big else [None] * 2, less=True)
    row(18, "building, s", [600], [big["put_s"] + big["compact_s"] if big.get("compact_s") else None], less=True)
    checks = big.get("leak_checks", 0)
    row(19, f"leaks in {checks:,} checks", [0], [big.get("leaks") if checks >= 1_000_000 else None], less=True)
    row(20, "behind a gate of 1 %, p99 ms: wishes, utterances", [1.0] * 2,
        [v and v / 1e3 for v in (of("wish/one-percent", "p99"), of("utterance/one-percent", "p99"))], less=True)


def main():
    clinc, banking = read("minilm.clinc150"), read("minilm.banking77")
    twenty, everything = pair("minilm20"), pair("minilm")
    row(1, "CLINC150 top-1, 20 / all", [94.5, 96.3], [twenty[0], everything[0]])
    row(2, "CLINC150 top-1, 5 (three draws)", [88.5], mean([f"minilm5-{seed}" for seed in range(3)])[:1])
    row(3, "BANKING77 top-1, 20 / all", [90, 94.3], [twenty[1], everything[1]])
    row(4, "top-5 at 20: CLINC150 / BANKING77", [99.4, 98.8], pair("minilm20", "top5"))
    row(5, "static only, all: CLINC150 / BANKING77", [94.5, 93], pair("static"))
    row(6, "name alone: CLINC150 / BANKING77", [72, 66], pair("names-minilm"))
    answered = [best(run["strategies"], "selective_98") if run else None for run in (clinc, banking)]
    row(7, "coverage at a threshold chosen for 98 %", [65, 87], [a and a["coverage"] for a in answered])
    row(7, "what was right of it", [98, 98], [a and a["accuracy"] for a in answered])
    for key, goal, less in (("auroc", 97.3, False), ("fpr95", 12, True)):
        row(8, f"CLINC150 {key}", [goal], [best(clinc["strategies"], key) if clinc else None], less)
    for key, goal in (("oos_f1", 82), ("all_way_accuracy", 92)):
        row(8, f"CLINC150 {key}", [goal], [best(clinc["strategies"], "abstention", key) if clinc else None])
    near = read("near.banking77")
    row(9, "near-domain AUROC", [92.5], [best(near["strategies"], "auroc") if near else None])
    merged = read("merged")
    row(10, "merged 325 at 20, top-1 / top-5", [88, 98.3],
        [best(merged["strategies"], key) if merged else None for key in ("top1", "top5")])
    million, alone = read("million"), read("merged-static")
    if million:
        values = [best(of_set(million, set), key) for set in SETS for key in ("top1", "top5")]
        row(11, f"325 among {million['distractors']:,}, top-1 / top-5 of both", [82, 95, 84, 97], values)
        gated = [best(of_set(million, set, "gated"), "top1") for set in SETS]
        single = [best(of_set(alone, set), "top1") if alone else None for set in SETS]
        lost = [None if None in pair else pair[0] - pair[1] for pair in zip(single, gated)]
        row(12, f"gated ({show(gated)}): top-1 lost against 325 alone ({show(single)})", [0.5, 0.5], lost, less=True)
        stages = million["stages_ms"]
        row(14, "text to decision, static, p95 ms", [0.8], [stages["text_to_decision"]["p95"]], less=True)
        row(15, "cache hit, p50 us", [10], [1e3 * stages["cache_hit"]["p50"]], less=True)
        fresh = million.get("reopened") or {}
        row(16, "router in a fresh process: memory growth MiB, index MB, opening ms", [16, 450, 20],
            [fresh["anonymous_growth_kib"] / 1024, million["index_file_bytes"] / 1e6, fresh["open_ms"]] if fresh else [None] * 3,
            less=True)
        row(17, "add, remove visible through the library, ms", [20, 20], [million["add_visible_ms"], million["remove_visible_ms"]], less=True)
        row(18, "index of the library: read, embed, build, s", [600], [million["index_compacted_s"]], less=True)
    if clinc:
        row(14, "text to decision, MiniLM, 150 adapters, p95 ms", [10], [clinc["stages_ms"]["text_to_decision"]["p95"]], less=True)
    scale = read("scale") or []
    index_rows(scale)
    print("| # | measure | goal | measured | |\n|---|---|---|---|---|")
    for number, what, goal, value, state in sorted(ROWS, key=lambda r: r[0]):
        print(f"| {number} | {what} | {goal} | {value} | {state} |")

    print("\n| strategy, 20 prompts: top-1 / top-5 | " + " | ".join(f"{s}, {e}" for e in ("MiniLM", "static") for s in SETS) + " |")
    print("|---|---|---|---|---|")
    runs = [read(f"{name}.{set}") for name in ("minilm20", "static20") for set in SETS]
    for name in ("keyword", "semantic", "task", "hybrid", "hierarchical", "mixture", "learned"):
        found = [next((s for s in (run or {}).get("strategies", []) if s["strategy"] == name), None) for run in runs]
        print(f"| {name} | " + " | ".join(f"{s['top1']:.1f} / {s['top5']:.1f}" if s else "-" for s in found) + " |")
    print("\n| reading of 98 % (learned) | " + " | ".join(f"{s}, {k}" for k in ("20", "all") for s in SETS) + " |\n|---|---|---|---|---|")
    runs = [read(f"{name}.{set}") for name in ("minilm20", "minilm") for set in SETS]
    for what, keys in (("top-1", ["top1"]), ("right one among five", ["top5"]),
                       ("answered at the threshold chosen beforehand", ["selective_98", "coverage"]),
                       ("right of those", ["selective_98", "accuracy"]),
                       ("answered at the best threshold", ["selective_98_best", "coverage"])):
        values = [best(run["strategies"], *keys) if run else None for run in runs]
        print(f"| {what} | " + " | ".join("-" if v is None else f"{v:.1f}" for v in values) + " |")

    print("\n| adapters | scan ms | wishes p50 / p99 ms | share | recall@10 | utterances p50 / p99 ms | share | recall@10 |")
    print("|---|---|---|---|---|---|---|---|")
    for size in scale:
        number = lambda key, name: float((re.search(rf"{name} ([0-9.]+)", size.get(key, "")) or [0, 0])[1])
        cells = []
        for kind in ("wish", "utterance"):
            p50, p99 = (number(f"{kind}/both", p) for p in ("p50", "p99"))
            cells.append(f"{p50 / 1e3:.3f} / {p99 / 1e3:.3f} | {p50 / size['scan_us']:.4f} | {number(f'{kind}/vectors', 'recall@10'):.3f}")
        print(f"| {size['entries']:,} | {size['scan_us'] / 1e3:.2f} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
