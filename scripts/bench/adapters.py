#!/usr/bin/env python3
"""Do real adapters change the answers? Exact matches on rows of each adapter's own task, base against adapter.

  scripts/bench/adapters.py banking=lora.gguf:dev.jsonl sql=sql.gguf:dev.jsonl

A row of a task file holds `messages`; the last one, the assistant's, is the right answer. All tasks and both sides
run in one process, one line after another with changing adapters, greedily.
"""

import argparse
import json
import pathlib

import drive


def rows_of(path, count):
    rows = []
    for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines()[:count]:
        messages = json.loads(line)["messages"]
        rows.append((messages[:-1], messages[-1]["content"]))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    drive.add_common_arguments(parser)
    parser.add_argument("task", nargs="+", metavar="NAME=ADAPTER:TASKFILE", help="an adapter and rows of its task")
    parser.add_argument("-r", "--rows", type=int, default=24, help="rows per task (24)")
    parser.add_argument("-n", type=int, default=96, metavar="N", help="tokens per answer (96)")
    args = parser.parse_args()
    tasks = []
    for text in args.task:
        name, _, rest = text.partition("=")
        adapter, _, file = rest.rpartition(":")
        tasks.append((name, pathlib.Path(adapter).resolve(), rows_of(file, args.rows)))
    bodies = [
        {"messages": messages, "n_predict": args.n, "temperature": 0, "adapters": "none",
         "lora": [{"path": str(adapter), "scale": 1.0}] if use else []}
        for _, adapter, rows in tasks for messages, _ in rows for use in (False, True)
    ]
    with drive.Ours(args.smoa, args.model, threads=args.threads, ctx=4096, parallel=4) as ours:
        answers = iter(ours.complete_all(bodies))
    print("| adapter | rows | base exact | adapter exact | first answer with the adapter |")
    print("| --- | ---: | ---: | ---: | --- |")
    measured = []
    for name, _, rows in tasks:
        exact, first = [0, 0], None
        for _, gold in rows:
            for use in (0, 1):
                content = next(answers)["content"].strip()
                exact[use] += content == gold.strip()
                if use and first is None:
                    first = content
        print(f"| {name} | {len(rows)} | {exact[0]} | {exact[1]} | `{first[:70]}` |")
        measured.append({"adapter": name, "rows": len(rows), "base": exact[0], "adapted": exact[1], "first": first})
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(measured, indent=1), encoding="utf-8")


if __name__ == "__main__":
    drive.run_main(main)
