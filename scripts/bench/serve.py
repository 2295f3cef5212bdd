#!/usr/bin/env python3
"""`smoa serve` and llama-server under load over HTTP, in turns, the same requests; then a long run of ours alone.

  scripts/bench/serve.sh --adapters DIR      builds both programs first
  scripts/bench/serve.py --adapters DIR      DIR: GGUF LoRA adapters (scripts/bench/random_lora.py makes some)

Streams of /v1/chat/completions from this machine. Tokens per second are by the wall, from sending all requests until
the last answer; the first token is the first piece of text at the client. The long run sends STREAMS x EACH requests
with the adapters in turn, waits where it is told to (429), and looks at the server's memory, open files and threads
before, during and after it. Exit code 1 when the long run had an error or did not stay flat.
"""

import argparse
import concurrent.futures
import http.client
import json
import pathlib
import statistics
import threading
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
        """What the process holds itself (RssAnon), and with the mapped model (VmRSS)."""
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        lines = dict(line.split(":", 1) for line in text.splitlines())
        return int(lines["RssAnon"].split()[0]), int(lines["VmRSS"].split()[0])

    def descriptors(self):
        return len(list(pathlib.Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def threads(self):
        return len(list(pathlib.Path(f"/proc/{self.process.pid}/task").iterdir()))


def stream(server, body):
    """One streamed answer: (status, seconds to the first text, tokens, seconds in all). 0: the connection broke."""
    begin = time.perf_counter()
    try:
        return read_stream(server, body, begin)
    except (OSError, http.client.HTTPException):
        return 0, 0.0, 0, time.perf_counter() - begin


def read_stream(server, body, begin):
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
    short = [a[2] for a, body in zip(answers, bodies) if a[2] != body["max_tokens"]]
    if short:
        server.fail(f"{len(short)} answers have not the tokens that were asked for, but for example {short[0]}")
    return sum(a[2] for a in answers) / wall, [a[1] for a in answers]


def p95(values):
    return sorted(values)[max(0, -(-len(values) * 95 // 100) - 1)]


def messages(i, tokens):
    return {"messages": [{"role": "user", "content": PROMPT.format(i=i)}], "max_tokens": tokens, "temperature": 0,
            "ignore_eos": True, "cache_prompt": False}


def lora_flags(files):
    return [x for f in files for x in ("--lora", str(f))] + ["--lora-init-without-apply"]


def only(chosen, files):
    """Of the files of --lora, this one."""
    return [{"id": a, "scale": 1.0 if a == chosen else 0.0} for a in range(len(files))]


def compare(args, files, table):
    plans = [(8, False), (32, False), (8, True)]
    most = max(n for n, _ in plans)
    print("| streams | ours tok/s | llama-server tok/s | ratio, median (min .. max) | ours first token p50 / p95 s "
          "| llama-server p50 / p95 s |")
    print("| --- | ---: | ---: | ---: | --- | --- |", flush=True)
    for n, adapted in plans:
        # Without adapters neither side has loaded any.
        flags = lora_flags(files) if adapted else []
        setup = {"threads": args.threads, "ctx": n * 384, "parallel": n}
        with OurServer(args.smoa, args.model, **setup, extra=[*flags, *args.smoa_args.split()]) as ours, \
                drive.Peer(args.peer, args.model, **setup,
                           extra=[*flags, "--kv-unified", *args.peer_args.split()]) as peer:
            key = f"{n} streams, " + ("one adapter each" if adapted else "no adapter")
            t = table[key] = {"ours": [], "peer": [], "ours_first": [], "peer_first": []}
            for round_number in range(args.rounds + 1):
                bodies = [messages(round_number * most + i, args.tokens) for i in range(n)]
                if adapted:
                    bodies = [{**body, "lora": only(i % len(files), files)} for i, body in enumerate(bodies)]
                sides = [("ours", ours), ("peer", peer)]
                for side, server in sides if round_number % 2 else sides[::-1]:
                    rate, first = turn(server, bodies, n)
                    if round_number:  # the first round warms up
                        t[side].append(rate)
                        t[side + "_first"].append(first)
        ratios = [a / b for a, b in zip(t["ours"], t["peer"])]
        cells = []
        for side in ("ours_first", "peer_first"):
            firsts = [x for r in t[side] for x in r]
            cells.append(f"{statistics.median(firsts):.2f} / {p95(firsts):.2f}")
        print(f"| {key} | {statistics.median(t['ours']):.1f} | {statistics.median(t['peer']):.1f} "
              f"| {statistics.median(ratios):.3f} ({min(ratios):.3f} .. {max(ratios):.3f}) | {cells[0]} | {cells[1]} |",
              flush=True)


def soak(args, files):
    extra = [*lora_flags(files), *args.smoa_args.split()]
    with OurServer(args.smoa, args.model, threads=args.threads, ctx=8 * 512, parallel=8, extra=extra) as server:
        def one(i):
            body = {**messages(i, args.soak_tokens), "lora": only(i % len(files), files)}
            told = 0
            while True:
                status, first, tokens, _ = stream(server, body)
                if status != 429:
                    return status, first, tokens, told
                told += 1
                time.sleep(0.5)

        def run(count):
            with concurrent.futures.ThreadPoolExecutor(args.streams) as pool:
                return list(pool.map(one, range(count)))

        def seen():
            return (*server.memory_kib(), server.descriptors(), server.threads())

        run(2 * args.streams)  # every adapter, slot and thread has been used
        time.sleep(12)  # threads that have nothing to do end after 10 s
        before = seen()
        done, samples = threading.Event(), []

        def watch():
            while not done.wait(2):
                samples.append(seen())

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        begin = time.perf_counter()
        answers = run(args.streams * args.each)
        wall = time.perf_counter() - begin
        done.set()
        watcher.join()
        time.sleep(12)
        after = seen()
    wrong = [a[0] for a in answers if a[0] != 200]
    short = sum(a[2] != args.soak_tokens for a in answers if a[0] == 200)
    told = sum(a[3] for a in answers)
    rate = sum(a[2] for a in answers) / wall
    flat = after[0] <= before[0] * 1.05 and after[2] <= before[2] + 2 and after[3] <= before[3] + 2
    most = [max(column) for column in zip(*samples, after)]
    print(f"long run: {args.streams} streams, {len(answers)} answers with {len(files)} adapters in {wall:.0f} s, "
          f"{rate:.1f} tokens/s; {len(wrong)} errors{' ' + str(sorted(set(wrong))) if wrong else ''}, {short} of another "
          f"length, {told} times told to wait (429)")
    print(f"own memory {before[0] / 1024:.1f} MiB before, {most[0] / 1024:.1f} at most, {after[0] / 1024:.1f} after "
          f"({100 * (after[0] / before[0] - 1):+.1f} %); with the mapped model {before[1] / 1024:.1f} and "
          f"{after[1] / 1024:.1f}; open files {before[2]}, {most[2]}, {after[2]}; threads {before[3]}, {most[3]}, "
          f"{after[3]}: {'flat' if flat else 'NOT FLAT'}")
    return {"answers": len(answers), "errors": len(wrong), "other_length": short, "told_to_wait": told, "seconds": wall,
            "rate": rate, "before": before, "after": after, "most": most, "flat": flat}


def first_byte(server, wait=60):
    """From the start of the process: seconds to the first byte of /health and until it is ready; statuses on the way."""
    begin = time.perf_counter()
    first, said = None, set()
    server.spawn()
    try:
        while time.perf_counter() - begin < wait:
            if server.process.poll() is not None:
                server.fail(f"ended with exit code {server.process.returncode}")
            try:
                with server._open("GET", "/health") as (_, response):
                    first = first or time.perf_counter() - begin
                    said.add(response.status)
                    if response.status == 200:
                        return first, time.perf_counter() - begin, said
            except OSError:
                pass
            time.sleep(0.001)
        server.fail("does not come up")
    finally:
        server.close()


def health(args):
    """The first byte of /health, and what it says until the model is there; beside llama-server where that is built."""
    out = {}
    setup = {"threads": args.threads, "ctx": 2048, "parallel": 1}
    makes = {"smoa serve": lambda: OurServer(args.smoa, args.model, **setup)}
    if args.peer.is_file():
        makes["llama-server"] = lambda: drive.Peer(args.peer, args.model, **setup)
    runs = {name: [] for name in makes}
    for _ in range(args.starts):
        for name, make in makes.items():
            runs[name].append(first_byte(make()))
    for name, all_runs in runs.items():
        firsts, readies = ([1000 * r[i] for r in all_runs] for i in (0, 1))
        said = sorted(set().union(*(r[2] for r in all_runs)))
        print(f"{name}: start to the first byte of /health {statistics.median(firsts):.0f} ms (median of {len(firsts)}, "
              f"worst {max(firsts):.0f}), until ready {statistics.median(readies):.0f} ms (worst {max(readies):.0f}); "
              f"statuses on the way: {said}", flush=True)
        out[name] = {"first_ms": firsts, "ready_ms": readies, "statuses": said}
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    drive.add_common_arguments(parser)
    parser.add_argument("--adapters", type=pathlib.Path, help="folder of at least 8 *.gguf adapters")
    parser.add_argument("--tokens", type=int, default=48, help="tokens per answer (48)")
    parser.add_argument("-r", "--rounds", type=int, default=3, help="rounds (3)")
    parser.add_argument("--streams", type=int, default=64, help="streams of the long run (64)")
    parser.add_argument("--each", type=int, default=20, help="requests of each stream (20)")
    parser.add_argument("--soak-tokens", type=int, default=8, help="tokens per answer of the long run (8)")
    parser.add_argument("--starts", type=int, default=11, help="starts for the first byte of /health (11)")
    parser.add_argument("--only", choices=["compare", "soak", "health"], help="one part of it")
    args = parser.parse_args()
    files = []
    if args.only != "health":
        if args.adapters is None:
            raise drive.Failure("--adapters DIR is missing")
        files = sorted(args.adapters.resolve().glob("*.gguf"))[:8]
        if len(files) < 8:
            raise drive.Failure(f"{args.adapters} has {len(files)} adapters, 8 are wanted")
    drive.check_files(args.smoa, args.model, *([args.peer] if args.only in (None, "compare") else []))
    print(f"smoa: {drive.version_of([args.smoa, '--version'])}; {args.threads} threads", flush=True)
    out = {"smoa": drive.version_of([args.smoa, "--version"]), "threads": args.threads}
    if args.peer.is_file():
        out["peer"] = drive.version_of([args.peer, "--version"])
        print(f"llama-server: {out['peer']}", flush=True)
    try:
        if args.only in (None, "health"):
            out["health"] = health(args)
        if args.only in (None, "compare"):
            compare(args, files, out.setdefault("compare", {}))
        if args.only in (None, "soak"):
            out["soak"] = soak(args, files)
    finally:  # what was measured before a failure stays
        if args.json:
            args.json.write_text(json.dumps(out, indent=1), encoding="utf-8")
    bad = out.get("soak", {})
    return 1 if bad.get("errors") or bad.get("other_length") or not bad.get("flat", True) else 0


if __name__ == "__main__":
    drive.run_main(main)
