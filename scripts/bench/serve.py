#!/usr/bin/env python3
"""`smoa serve` and llama-server under load over HTTP, in turns, the same requests; then a long run of ours alone.

  scripts/bench/serve.sh --adapters DIR      builds both programs first
  scripts/bench/serve.py --adapters DIR      DIR: GGUF LoRA adapters (scripts/bench/random_lora.py makes some)

Streams of /v1/chat/completions from this machine. Tokens per second are by the wall, from sending all requests until
the last answer; the first token is the first piece of text at the client. The long run sends STREAMS x EACH requests
with the adapters in turn, waits where it is told to (429), and looks at the server's memory and open files before and
after it.
"""

import argparse
import concurrent.futures
import json
import pathlib
import statistics
import time

import drive

PROMPT = "Number {i}. Write a short story about a village, its well and the people who came to it."


class OurServer(drive.Peer):
    """`smoa serve` on a port of its own."""

    name = "smoa serve"

    def __init__(self, binary, model, *, threads, ctx, parallel, extra=()):
        super().__init__(binary, model, threads=threads, ctx=ctx, parallel=parallel)
        self.command = [str(part) for part in [binary, "serve", "-m", model, "-t", threads, "-c", ctx, "-np", parallel,
                                               "--port", self.port, "--log-disable", *extra]]

    def memory_kib(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in text.splitlines() if line.startswith("RssAnon:")))

    def descriptors(self):
        return len(list(pathlib.Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def threads(self):
        return len(list(pathlib.Path(f"/proc/{self.process.pid}/task").iterdir()))


def stream(server, body):
    """One streamed answer: (status, seconds to the first text, tokens, seconds in all)."""
    begin = time.perf_counter()
    first, tokens = None, 0
    asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
    with server._open("POST", "/v1/chat/completions", asked) as (_, response):
        if response.status != 200:
            response.read()
            return response.status, 0.0, 0, time.perf_counter() - begin
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if event.get("error"):
                return 500, 0.0, 0, time.perf_counter() - begin
            if first is None and event["choices"] and event["choices"][0]["delta"].get("content"):
                first = time.perf_counter() - begin
            if event.get("usage"):
                tokens = event["usage"]["completion_tokens"]
    return 200, first if first is not None else time.perf_counter() - begin, tokens, time.perf_counter() - begin


def turn(server, bodies, streams):
    """All of `bodies`, `streams` at a time: (tokens per second, seconds to each first token)."""
    begin = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(streams) as pool:
        answers = list(pool.map(lambda body: stream(server, body), bodies))
    wall = time.perf_counter() - begin
    wrong = [a[0] for a in answers if a[0] != 200]
    if wrong:
        server.fail(f"answered {wrong[0]} to {len(wrong)} of {len(bodies)} requests")
    return sum(a[2] for a in answers) / wall, [a[1] for a in answers]


def p95(values):
    return sorted(values)[max(0, -(-len(values) * 95 // 100) - 1)]


def messages(i, tokens):
    return {"messages": [{"role": "user", "content": PROMPT.format(i=i)}], "max_tokens": tokens, "temperature": 0,
            "ignore_eos": True, "cache_prompt": False}


def compare(args, files, table):
    plans = [(8, False), (32, False), (8, True)]
    flags = [x for f in files for x in ("--lora", str(f))] + ["--lora-init-without-apply"]
    most = max(n for n, _ in plans)
    for n, adapted in plans:
        ctx = n * 384
        with OurServer(args.smoa, args.model, threads=args.threads, ctx=ctx, parallel=n, extra=flags) as ours, \
                drive.Peer(args.peer, args.model, threads=args.threads, ctx=ctx, parallel=n,
                           extra=[*flags, "--kv-unified"]) as peer:
            key = f"{n} streams, " + ("one adapter each" if adapted else "no adapter")
            rows = table[key] = {"ours": [], "peer": [], "ours_first": [], "peer_first": []}
            for round_number in range(args.rounds + 1):
                bodies = []
                for i in range(n):
                    lora = [{"id": a, "scale": 1.0 if adapted and a == i else 0.0} for a in range(len(files))]
                    bodies.append({**messages(round_number * most + i, args.tokens), "lora": lora})
                sides = [("ours", ours), ("peer", peer)]
                for side, server in sides if round_number % 2 else sides[::-1]:
                    rate, first = turn(server, bodies, n)
                    if round_number:  # the first round warms up
                        rows[side].append(rate)
                        rows[side + "_first"].append(first)
    print("| streams | ours tok/s | llama-server tok/s | ratio | ours first token p50 / p95 s | llama-server p50 / p95 s |")
    print("| --- | ---: | ---: | ---: | --- | --- |")
    for key, t in table.items():
        ratio = statistics.median(a / b for a, b in zip(t["ours"], t["peer"]))
        cells = []
        for side in ("ours_first", "peer_first"):
            firsts = [x for r in t[side] for x in r]
            cells.append(f"{statistics.median(firsts):.2f} / {p95(firsts):.2f}")
        print(f"| {key} | {statistics.median(t['ours']):.1f} | {statistics.median(t['peer']):.1f} | {ratio:.2f} "
              f"| {cells[0]} | {cells[1]} |", flush=True)


def soak(args, files):
    flags = [x for f in files for x in ("--lora", str(f))] + ["--lora-init-without-apply"]
    with OurServer(args.smoa, args.model, threads=args.threads, ctx=8 * 512, parallel=8, extra=flags) as server:
        def one(i):
            lora = [{"id": a, "scale": 1.0 if a == i % len(files) else 0.0} for a in range(len(files))]
            told = 0
            while True:
                status, first, tokens, _ = stream(server, {**messages(i, args.soak_tokens), "lora": lora})
                if status != 429:
                    return status, first, tokens, told
                told += 1
                time.sleep(0.5)

        def run(count):
            with concurrent.futures.ThreadPoolExecutor(args.streams) as pool:
                return list(pool.map(one, range(count)))

        run(args.streams)  # every adapter and thread has been used once
        time.sleep(1)
        before = (server.memory_kib(), server.descriptors(), server.threads())
        begin = time.perf_counter()
        answers = run(args.streams * args.each)
        wall = time.perf_counter() - begin
        time.sleep(12)  # threads that have nothing to do end after 10 s
        after = (server.memory_kib(), server.descriptors(), server.threads())
    wrong = [a for a in answers if a[0] != 200]
    told = sum(a[3] for a in answers)
    rate = sum(a[2] for a in answers) / wall
    print(f"long run: {args.streams} streams, {len(answers)} answers with {len(files)} adapters in {wall:.0f} s, "
          f"{rate:.1f} tokens/s; {len(wrong)} errors, {told} times told to wait (429)")
    print(f"memory {before[0] / 1024:.1f} MiB before, {after[0] / 1024:.1f} MiB after "
          f"({100 * (after[0] / before[0] - 1):+.1f} %); open files {before[1]} and {after[1]}; "
          f"threads {before[2]} and {after[2]}")
    return {"answers": len(answers), "errors": len(wrong), "told_to_wait": told, "seconds": wall, "rate": rate,
            "before": before, "after": after}


def health(args):
    """From the start of the process to the first byte of /health, and what it says until the model is there."""
    times, said = [], set()
    for _ in range(5):
        server = OurServer(args.smoa, args.model, threads=args.threads, ctx=2048, parallel=1)
        begin = time.perf_counter()
        server.spawn()
        first = None
        try:
            while time.perf_counter() - begin < 30:
                try:
                    with server._open("GET", "/health") as (_, response):
                        first = first or time.perf_counter() - begin
                        said.add(response.status)
                        if response.status == 200:
                            break
                except OSError:
                    time.sleep(0.001)
        finally:
            server.close()
        times.append(first)
    print(f"start to the first byte of /health: {1000 * statistics.median(times):.0f} ms (median of 5, worst "
          f"{1000 * max(times):.0f}); statuses seen while starting: {sorted(said)}")
    return {"seconds": times, "statuses": sorted(said)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    drive.add_common_arguments(parser)
    parser.add_argument("--adapters", required=True, type=pathlib.Path, help="folder of at least 8 *.gguf adapters")
    parser.add_argument("--tokens", type=int, default=48, help="tokens per answer (48)")
    parser.add_argument("-r", "--rounds", type=int, default=3, help="rounds (3)")
    parser.add_argument("--streams", type=int, default=64, help="streams of the long run (64)")
    parser.add_argument("--each", type=int, default=20, help="requests of each stream (20)")
    parser.add_argument("--soak-tokens", type=int, default=8, help="tokens per answer of the long run (8)")
    parser.add_argument("--only", choices=["compare", "soak", "health"], help="one part of it")
    args = parser.parse_args()
    files = sorted(args.adapters.resolve().glob("*.gguf"))[:8]
    if len(files) < 8:
        raise drive.Failure(f"{args.adapters} has {len(files)} adapters, 8 are wanted")
    drive.check_files(args.smoa, args.model, *([args.peer] if args.only in (None, "compare") else []))
    out = {}
    if args.only in (None, "health"):
        out["health"] = health(args)
    if args.only in (None, "compare"):
        compare(args, files, out.setdefault("compare", {}))
    if args.only in (None, "soak"):
        out["soak"] = soak(args, files)
    if args.json:
        args.json.write_text(json.dumps(out, indent=1), encoding="utf-8")


if __name__ == "__main__":
    drive.run_main(main)
