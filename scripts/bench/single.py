#!/usr/bin/env python3
"""smoa and llama-server side by side, in turns within one run.

Figures:
  decode   tokens per second of one sequence while it generates
  prefill  tokens per second of one prompt while it is read
  start    from the start of the process to the first piece of text
  batch    tokens per second of several sequences at once, by the wall clock

Both sides run the same model, threads and context; sampling is greedy, no prompt cache is used, and every
answer has the asked length. The sides take turns, and who goes first changes every round, so that a machine
that slows down slows both. Compare the ratios: absolute figures of two runs do not compare.

How the rates are read: decode is (predicted_n - 1) / predicted_ms of the answer's own timings, since the first
token comes with the prompt; prefill is prompt_n / prompt_ms. "by the wall" is the whole request as the client
sees it, a check on the timings that needs no trust in either program.
"""

import argparse
import json
import os
import pathlib
import platform
import random
import shlex
import statistics
import subprocess
import sys
import time

import drive

PROMPTS = [
    "The lighthouse keeper opened the door, looked at the sea and said that",
    "In the first chapter of her book on bridges the engineer explains why",
    "Yesterday the village council met to talk about the old mill, and",
    "A good way to learn a new language is to begin every day with",
    "The recipe calls for flour, butter, two eggs and a pinch of salt. First,",
    "When the train stopped between two stations, the passengers began to",
    "Our solar system has eight planets. The closest one to the sun is",
    "The museum of clocks has a room in which nothing moves, because",
]
WORDS = ("time year people way day man thing woman life child world school state family student group country "
         "problem hand part place case week company system program question work government number night point "
         "home water room mother area money story fact month lot right study book eye job word business issue "
         "side kind head house service friend father power hour game line end member law car city community name "
         "president team minute idea kid body information back parent face others level office door health person "
         "art war history party result change morning reason research girl guy moment air teacher force education "
         "and the of to in is was for with on as by at from or an be this that which but not are have were").split()
FIGURES = ("decode", "prefill", "start", "batch")
ENOUGH_IDLE = 0.02  # share of a core that a waiting program may use before the run says so


class Figure:
    """One line of the table: what both sides gave, round by round."""

    def __init__(self, name, unit, wanted):
        self.name, self.unit, self.wanted = name, unit, wanted
        self.ours, self.peer = [], []

    def add(self, side, value):
        (self.ours if side == "ours" else self.peer).append(value)

    def ratios(self):
        return [a / b for a, b in zip(self.ours, self.peer)]

    def row(self):
        ratios = self.ratios()
        a, b = statistics.median(self.ours), statistics.median(self.peer)
        return (f"| {self.name} | {self.unit} | {a:.1f} | {b:.1f} | {statistics.median(ratios):.3f} "
                f"| {min(ratios):.3f} .. {max(ratios):.3f} | {self.wanted} |")

    def as_json(self):
        ratios = self.ratios()
        return {"name": self.name, "unit": self.unit, "wanted": self.wanted, "ours": self.ours, "peer": self.peer,
                "ours_median": statistics.median(self.ours), "peer_median": statistics.median(self.peer),
                "ratio_median": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}


class Bench:
    def __init__(self, options):
        self.o = options
        self.figures = []
        self.idle = {"ours": 0.0, "peer": 0.0}  # the largest share of a core seen while the other worked
        self.notes = []

    def figure(self, *args):
        self.figures.append(Figure(*args))
        return self.figures[-1]

    def sides(self, ctx, parallel):
        o = self.o
        common = {"threads": o.threads, "ctx": ctx, "parallel": parallel}
        return {"ours": drive.Ours(o.smoa, o.model, extra=shlex.split(o.smoa_args), **common),
                "peer": drive.Peer(o.peer, o.model, extra=shlex.split(o.peer_args), **common)}

    def turns(self, sides, work):
        """Let both sides do `work`, the first of them changing from round to round."""
        order = ("ours", "peer") if self.round % 2 == 0 else ("peer", "ours")
        for side in order:
            waiting = sides["peer" if side == "ours" else "ours"]
            cpu, wall = waiting.cpu_seconds(), time.perf_counter()
            work(side, sides[side])
            wall = time.perf_counter() - wall
            if cpu is not None and wall > 0.3:
                name = "peer" if side == "ours" else "ours"
                self.idle[name] = max(self.idle[name], (waiting.cpu_seconds() - cpu) / wall)

    def rounds(self, what, count=None):
        for self.round in range(count or self.o.rounds):
            print(f"{what}: round {self.round + 1}/{count or self.o.rounds}", file=sys.stderr)
            yield self.round

    def request(self, prompt, n_predict):
        return {"prompt": prompt, "n_predict": n_predict, "temperature": 0, "ignore_eos": True, "cache_prompt": False}

    def checked(self, program, answer, n_predict):
        timings = answer.get("timings") or {}
        if timings.get("predicted_n") != n_predict:
            program.fail(f"was asked for {n_predict} tokens and gave {timings.get('predicted_n')}")
        return timings

    # ---- one sequence: decode and prefill ------------------------------------------------------

    def single(self):
        o = self.o
        decode = prefill = None
        if "decode" in o.only:
            decode = (self.figure("decode, 1 sequence", "tok/s", "more"),
                      self.figure(f"decode request of {o.decode} tokens, by the wall", "ms", "less"))
        if "prefill" in o.only:
            prefill = (self.figure(f"prefill, {o.prefill} tokens", "tok/s", "more"),
                       self.figure("prefill request, by the wall", "ms", "less"))
        sides = self.sides(o.ctx, 1)
        with sides["ours"], sides["peer"]:
            texts = [self.long_text(sides["peer"], seed) for seed in range(o.rounds + 1)]
            for program in sides.values():  # warm: the model is loaded and every buffer allocated
                program.complete(self.request(texts[-1], 8))
                program.complete(self.request(PROMPTS[-1], 8))
            for r in self.rounds("one sequence"):
                if decode:
                    self.turns(sides, lambda side, program: self.one_decode(side, program, decode, PROMPTS[r % 8]))
                if prefill:
                    lengths = {}
                    self.turns(sides, lambda side, program: lengths.update(
                        {side: self.one_prefill(side, program, prefill, texts[r])}))
                    if len(set(lengths.values())) > 1:
                        self.notes.append(f"round {r + 1}: the prompt has {lengths} tokens")

    def long_text(self, peer, seed):
        rng = random.Random(seed)
        words = " ".join(rng.choice(WORDS) for _ in range(self.o.prefill + 16))
        return peer.text_of_tokens(words, self.o.prefill)

    def one_decode(self, side, program, figures, prompt):
        wall = time.perf_counter()
        answer = program.complete(self.request(prompt, self.o.decode))
        wall = time.perf_counter() - wall
        timings = self.checked(program, answer, self.o.decode)
        figures[0].add(side, 1000 * (timings["predicted_n"] - 1) / timings["predicted_ms"])
        figures[1].add(side, 1000 * wall)

    def one_prefill(self, side, program, figures, text):
        wall = time.perf_counter()
        answer = program.complete(self.request(text, 1))
        wall = time.perf_counter() - wall
        timings = self.checked(program, answer, 1)
        figures[0].add(side, 1000 * timings["prompt_n"] / timings["prompt_ms"])
        figures[1].add(side, 1000 * wall)
        return timings["prompt_n"]

    # ---- several sequences ---------------------------------------------------------------------

    def batch(self):
        o = self.o
        figure = self.figure(f"decode, {o.parallel} sequences, by the wall", "tok/s", "more")
        bodies = [self.request(PROMPTS[i % 8], o.decode) for i in range(o.parallel)]
        sides = self.sides(o.parallel * 512, o.parallel)
        with sides["ours"], sides["peer"]:
            for program in sides.values():
                program.complete_all([{**body, "n_predict": 8} for body in bodies])
            for _ in self.rounds(f"{o.parallel} sequences"):
                self.turns(sides, lambda side, program: self.one_batch(side, program, figure, bodies))

    def one_batch(self, side, program, figure, bodies):
        wall = time.perf_counter()
        answers = program.complete_all(bodies)
        wall = time.perf_counter() - wall
        tokens = sum(self.checked(program, answer, self.o.decode)["predicted_n"] for answer in answers)
        figure.add(side, tokens / wall)

    # ---- start ---------------------------------------------------------------------------------

    def start(self):
        o = self.o
        body = self.request(PROMPTS[0], 8)
        shared = ["-m", o.model, "-t", o.threads, "-c", o.ctx, "-n", 8, "--temp", 0]
        ours = [o.smoa, "run", "--raw", *shared, *shlex.split(o.smoa_args), PROMPTS[0]]
        server = self.figure("start to first token (peer: llama-server)", "ms", "less")
        ways = {"ours": lambda: first_byte("smoa", ours),
                "peer": lambda: self.first_of_server(body)}
        completion = o.peer.with_name("llama-completion")
        tool = None
        if completion.is_file():
            tool = self.figure("start to first token (peer: llama-completion)", "ms", "less")
            command = [completion, *shared, "-no-cnv", "--no-display-prompt", "--simple-io", "-p", PROMPTS[0]]
            ways["tool"] = lambda: first_byte("llama-completion", command)
        for way in ways.values():
            way()
        for r in self.rounds("start"):
            order = list(ways) if r % 2 == 0 else list(ways)[::-1]
            took = {way: 1000 * ways[way]() for way in order}
            server.add("ours", took["ours"])
            server.add("peer", took["peer"])
            if tool:
                tool.add("ours", took["ours"])
                tool.add("peer", took["tool"])

    def first_of_server(self, body):
        o = self.o
        peer = drive.Peer(o.peer, o.model, threads=o.threads, ctx=o.ctx, extra=shlex.split(o.peer_args))
        begin = time.perf_counter()
        try:
            peer.start()
            peer.first_token(body)
            return time.perf_counter() - begin
        finally:
            peer.close()


def first_byte(name, command):
    """Seconds from the start of the process to the first byte on its stdout."""
    program = drive.Program(command)
    program.name = name
    begin = time.perf_counter()
    try:
        program.spawn(stdout=subprocess.PIPE)
        byte = os.read(program.process.stdout.fileno(), 1)
        took = time.perf_counter() - begin
        program.process.stdout.read()
        program.process.wait()
        if not byte or program.process.returncode != 0:
            program.fail(f"ended with exit code {program.process.returncode}")
        return took
    finally:
        program.close()


def cpu_times():
    """Whole-machine CPU times by name, in ticks; empty where the system does not tell."""
    names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
    try:
        return dict(zip(names, map(int, pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])))
    except OSError:
        return {}


def cpu_name():
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    drive.add_common_arguments(parser)
    parser.add_argument("-r", "--rounds", type=int, default=7, metavar="R", help="rounds per figure (%(default)s)")
    parser.add_argument("-c", "--ctx", type=int, default=2048, metavar="C",
                        help="context of the single sequence; the batch has 512 each (%(default)s)")
    parser.add_argument("--decode", type=int, default=128, metavar="N", help="tokens to generate (%(default)s)")
    parser.add_argument("--prefill", type=int, default=512, metavar="N", help="tokens of a prompt (%(default)s)")
    parser.add_argument("--parallel", type=int, default=8, metavar="N", help="sequences in the batch (%(default)s)")
    parser.add_argument("--only", default=",".join(FIGURES), metavar="LIST", help="of these figures (%(default)s)")
    options = parser.parse_args()
    options.only = options.only.split(",")
    unknown = set(options.only) - set(FIGURES)
    if unknown:
        parser.error(f"--only knows {', '.join(FIGURES)}, not {', '.join(sorted(unknown))}")
    drive.check_files(options.smoa, options.peer, options.model)

    begin, before, load_before = time.time(), cpu_times(), os.getloadavg()
    bench = Bench(options)
    if {"decode", "prefill"} & set(options.only):
        bench.single()
    if "batch" in options.only:
        bench.batch()
    if "start" in options.only:
        bench.start()
    after, load_after = cpu_times(), os.getloadavg()

    ticks = sum(after.values()) - sum(before.values())
    steal = (after.get("steal", 0) - before.get("steal", 0)) / ticks if ticks else None
    for side, share in bench.idle.items():
        if share > ENOUGH_IDLE:
            bench.notes.append(f"{side} used {share:.0%} of a core while the other side worked")
    about = {
        "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(begin)), "seconds": round(time.time() - begin, 1),
        "cpu": cpu_name(), "cores": os.cpu_count(), "system": f"{platform.system()} {platform.release()}",
        "smoa": drive.version_of([options.smoa, "version"]),
        "peer": drive.version_of([options.peer, "--version"]),
        "model": options.model.name, "threads": options.threads, "ctx": options.ctx, "rounds": options.rounds,
        "decode": options.decode, "prefill": options.prefill, "parallel": options.parallel,
        "smoa_args": options.smoa_args, "peer_args": options.peer_args,
        "load_before": load_before[0], "load_after": load_after[0], "steal": steal,
        "idle_share": bench.idle, "notes": bench.notes,
    }
    print(f"{about['cpu']}, {about['cores']} cores, {about['threads']} threads; {about['model']}; "
          f"{about['rounds']} rounds in turns, {about['seconds']:.0f} s")
    print(f"ours: {about['smoa']}; peer: {about['peer']}")
    print(f"load average {load_before[0]:.2f} before, {load_after[0]:.2f} after"
          + (f"; stolen CPU time {steal:.1%}" if steal is not None else "")
          + f"; waiting sides used at most {max(bench.idle.values()):.1%} of a core\n")
    print("| figure | unit | ours | peer | ours/peer | min .. max | wanted |")
    print("| --- | --- | ---: | ---: | ---: | --- | --- |")
    for figure in bench.figures:
        print(figure.row())
    print("\nours and peer are medians; ours/peer is the median of the ratios round by round.")
    for note in bench.notes:
        print(f"note: {note}")
    if options.json:
        options.json.write_text(json.dumps({"about": about, "figures": [f.as_json() for f in bench.figures]}, indent=1))
    return 0


if __name__ == "__main__":
    drive.run_main(main)
