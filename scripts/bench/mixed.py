#!/usr/bin/env python3
"""Concurrent requests with no adapter, one adapter for all, or one each: smoa and llama-server in turns.

  scripts/bench/mixed.sh --adapters DIR --requests N    builds both programs first
  scripts/bench/mixed.py --adapters DIR                 DIR: GGUF LoRA adapters (scripts/bench/random_lora.py makes some)

Tokens per second are by the wall, from sending all requests until the last answer. The first token of a request is
told by smoa's own timings (queued + prompt); for llama-server it is the first streamed piece.
"""

import argparse
import concurrent.futures
import json
import pathlib
import statistics
import time

import drive

PROMPT = "Number {i}. Write a short story about a village, its well and the people who came to it."


def ours_round(program, bodies):
    begin = time.perf_counter()
    answers = program.complete_all(bodies)
    wall = time.perf_counter() - begin
    first = [(a["timings"]["queued_ms"] + a["timings"]["prompt_ms"]) / 1000 for a in answers]
    return sum(a["timings"]["predicted_n"] for a in answers) / wall, first


def peer_round(program, bodies):
    def one(body):
        begin = time.perf_counter()
        first, count = None, 0
        with program._open("POST", "/completion", {**body, "stream": True}) as (_, response):
            for line in response:
                if line.startswith(b"data:"):
                    event = json.loads(line[5:])
                    if event.get("content") and first is None:
                        first = time.perf_counter() - begin
                    count = event.get("tokens_predicted", count)
        return first or 0.0, count

    begin = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
        results = list(pool.map(one, bodies))
    wall = time.perf_counter() - begin
    return sum(n for _, n in results) / wall, [first for first, _ in results]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    drive.add_common_arguments(parser)
    parser.add_argument("--adapters", required=True, type=pathlib.Path, help="folder of *.gguf adapters")
    parser.add_argument("--requests", type=int, default=8, help="requests at once (8)")
    parser.add_argument("--tokens", type=int, default=48, help="tokens per answer (48)")
    parser.add_argument("-r", "--rounds", type=int, default=3, help="rounds (3)")
    args = parser.parse_args()
    n = args.requests
    files = sorted(args.adapters.resolve().glob("*.gguf"))[:n]
    if len(files) < n:
        raise drive.Failure(f"{args.adapters} has {len(files)} adapters, {n} are wanted")
    base = {"n_predict": args.tokens, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
    lora_flags = [x for f in files for x in ("--lora", str(f))] + ["--lora-init-without-apply"]
    plans = {"no adapter": [None] * n, "one adapter for all": [0] * n, "one adapter each": list(range(n))}
    table = {name: {"ours": [], "peer": [], "ours_first": [], "peer_first": []} for name in plans}
    ctx = n * 512
    with drive.Ours(args.smoa, args.model, threads=args.threads, ctx=ctx, parallel=n) as ours, \
            drive.Peer(args.peer, args.model, threads=args.threads, ctx=ctx, parallel=n, extra=lora_flags) as peer:
        for round_number in range(args.rounds + 1):
            for name, plan in plans.items():
                prompts = [PROMPT.format(i=i) for i in range(n)]
                mine = [{**base, "prompt": p, "adapters": "none",
                         "lora": [] if a is None else [{"path": str(files[a])}]} for p, a in zip(prompts, plan)]
                theirs = [{**base, "prompt": p,
                           "lora": [{"id": i, "scale": 1.0 if i == a else 0.0} for i in range(n)]}
                          for p, a in zip(prompts, plan)]
                measured = [ours_round(ours, mine), peer_round(peer, theirs)]
                if round_number == 0:
                    continue  # adapters are loaded, files are warm
                for side, (rate, first) in zip(("ours", "peer"), measured):
                    table[name][side].append(rate)
                    table[name][side + "_first"].append(first)
    print("| requests | ours tok/s | llama-server tok/s | ratio | ours first token p50 / worst s "
          "| llama-server p50 / worst s |")
    print("| --- | ---: | ---: | ---: | --- | --- |")
    for name, t in table.items():
        ratio = statistics.median(a / b for a, b in zip(t["ours"], t["peer"]))
        ttft = {s: [x for r in t[s + "_first"] for x in r] for s in ("ours", "peer")}
        cells = [f"{statistics.median(ttft[s]):.2f} / {max(ttft[s]):.2f}" for s in ("ours", "peer")]
        print(f"| {n}, {name} | {statistics.median(t['ours']):.1f} | {statistics.median(t['peer']):.1f} "
              f"| {ratio:.2f} | {cells[0]} | {cells[1]} |")
    rate = {name: t["ours"] for name, t in table.items()}
    inside = {
        "mixed over no adapter": [a / b for a, b in zip(rate["one adapter each"], rate["no adapter"])],
        "mixed over one adapter for all": [a / b for a, b in zip(rate["one adapter each"], rate["one adapter for all"])],
    }
    for name, ratios in inside.items():
        print(f"ours, {name}: {statistics.median(ratios):.2f}")
    worst = [max(x for r in table["one adapter each"][side] for x in r) for side in ("ours_first", "peer_first")]
    print(f"worst first token, one adapter each: {worst[0] / worst[1]:.2f} of llama-server's")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(table, indent=1), encoding="utf-8")


if __name__ == "__main__":
    drive.run_main(main)
