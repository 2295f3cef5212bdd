"""Answers with drafts and without, in turns, in one process; scripts/bench/drafts.sh runs it.

Kinds of requests: `extract` (short JSON that copies words, under the adapter json-extract), `copy` (a text that is
to be said again with a word changed, by the plain base), `chat` (open questions, by the plain base), `list` (a list that
goes on for ever, of which every guess is right). Tokens per second
are those of all streams together by the clock, prompts read included. Processor time is that of the whole process: on a
machine that is not quiet, with `-t 1`, it is the figure that can be believed. Standard library only.
"""

import argparse
import json
import pathlib
import statistics
import time

import drive

# Way, tokens looked up, tokens guessed.
SETTINGS = {
    "simple-12-48": ("ngram-simple", 12, 48),
    "simple-3-6": ("ngram-simple", 3, 6),
    "simple-2-4": ("ngram-simple", 2, 4),
    "map-k-3-6": ("ngram-map-k", 3, 6),
    "mod-24-64": ("ngram-mod", 24, 64),
    "mod-4-16": ("ngram-mod", 4, 16),
}
CHAT = [
    "Why is the sky blue?", "Give me a recipe for pancakes.", "How does a microwave oven work?",
    "Write a short letter that declines an invitation.", "What should I look for when I buy a bicycle?",
    "Explain photosynthesis to a child.", "Tell me about the history of Rome.", "How do I learn to swim?",
]


def flags(setting):
    way, n, m = SETTINGS[setting]
    if way == "ngram-mod":
        sizes = [("n-match", n), ("n-max", m), ("n-min", 48 if m == 64 else 2)]
    else:
        sizes = [("size-n", n), ("size-m", m)]
    return ["--spec-type", way, *(part for name, size in sizes for part in (f"--spec-{way}-{name}", str(size)))]


def copies(rows):
    """Paragraphs out of the rows, each to be said again with one word changed."""
    users = [row["messages"][1]["content"].strip() for row in rows]
    for at in range(0, len(users) - 5, 6):
        text = " ".join(user if user[-1] in ".?!" else user + "." for user in users[at:at + 6])
        word = next(word for word in text.split() if len(word) > 5 and word.isalpha())
        ask = f"Repeat the following text word for word, but write {word.upper()} instead of {word}.\n\n{text}"
        yield [{"role": "user", "content": ask}]


def bodies(kind, rows, args):
    plain = {"temperature": 0, "n_predict": args.tokens, "cache_prompt": False}
    if kind == "extract":
        lora = [{"path": str(drive.ROOT / "models/adapters/json-extract.gguf"), "scale": 1}]
        messages = [row["messages"][:2] for row in rows]
        return [{**plain, "messages": m, "lora": lora} for m in messages[:args.requests]]
    if kind == "copy":
        return [{**plain, "messages": m} for m in list(copies(rows))[:args.requests]]
    if kind == "list":
        prompts = ["Again and again:" + " red, green, blue, white, black," * n for n in range(6, 6 + args.requests)]
        return [{**plain, "prompt": text} for text in prompts]
    return [{**plain, "messages": [{"role": "user", "content": text}]} for text in CHAT[:args.requests]]


def measure(program, requests, streams, rounds):
    """Rates without and with, the answers that differ, and what was guessed."""
    rates = {"plain": [], "drafted": []}
    cpu = {"plain": 0.0, "drafted": 0.0}
    differ = differ_plain = guessed = right = 0
    for turn in range(rounds + 1):
        answers = {"plain": [], "drafted": []}
        seconds = {"plain": 0.0, "drafted": 0.0}
        for at in range(0, len(requests), streams):
            group = requests[at:at + streams]
            order = ["plain", "drafted"] if (turn + at // streams) % 2 == 0 else ["drafted", "plain"]
            for which in order:
                off = {"speculative.types": "none"} if which == "plain" else {}
                before, began = program.cpu_seconds() or 0.0, time.monotonic()
                answers[which] += program.complete_all([{**body, **off} for body in group])
                seconds[which] += time.monotonic() - began
                cpu[which] += ((program.cpu_seconds() or 0.0) - before) if turn else 0.0
        if turn == 0:
            first = answers["plain"]
            continue  # to warm up
        for which, all_of_it in answers.items():
            rates[which].append(sum(a["timings"]["predicted_n"] for a in all_of_it) / seconds[which])
        differ_plain += sum(a["content"] != b["content"] for a, b in zip(answers["plain"], first))
        differ += sum(a["content"] != b["content"] for a, b in zip(answers["plain"], answers["drafted"]))
        guessed += sum(a["timings"].get("draft_n", 0) for a in answers["drafted"])
        right += sum(a["timings"].get("draft_n_accepted", 0) for a in answers["drafted"])
        tokens = sum(a["timings"]["predicted_n"] for a in answers["drafted"])
    ratios = [b / a for a, b in zip(rates["plain"], rates["drafted"])]
    return {
        "plain": statistics.median(rates["plain"]), "drafted": statistics.median(rates["drafted"]),
        "ratio": statistics.median(ratios), "least": min(ratios), "most": max(ratios),
        "guessed": guessed, "right": right, "tokens": tokens * rounds, "differ": differ,
        "differ_plain": differ_plain,
        "answers": rounds * len(requests), "cpu": cpu["drafted"] / cpu["plain"] if cpu["plain"] else float("nan"),
    }


def row_costs(program):
    """Milliseconds of one step by its rows, the least of five: prompts of so many tokens that nothing else has in it."""
    counts = [1, 2, 4, 8, 16, 48]
    least = {n: float("inf") for n in counts}
    for turn in range(5):
        for n in counts:
            prompt = [(7 * i * i + 13 * n + 991 * turn) % 30000 + 100 for i in range(n)]
            answer = program.complete({"prompt": prompt, "n_predict": 1, "cache_prompt": False})
            least[n] = min(least[n], answer["timings"]["prompt_ms"])
    return least


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    drive.add_common_arguments(parser)
    parser.add_argument("--data", type=pathlib.Path, required=True, metavar="DIR", help="folder with json-extract/dev.jsonl")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds that count (%(default)s)")
    parser.add_argument("--requests", type=int, default=8, metavar="N", help="requests of each kind (%(default)s)")
    parser.add_argument("--tokens", type=int, default=64, metavar="N", help="most tokens of an answer (%(default)s)")
    parser.add_argument("--streams", default="1,4", metavar="LIST", help="numbers of streams (%(default)s)")
    parser.add_argument("--settings", default="simple-12-48,simple-3-6", metavar="LIST",
                        help=f"of {', '.join(SETTINGS)} (%(default)s)")
    parser.add_argument("--kinds", default="extract,copy,chat", metavar="LIST", help="kinds of requests (%(default)s)")
    args = parser.parse_args()
    drive.check_files(args.smoa, args.model, args.data / "json-extract" / "dev.jsonl")
    with open(args.data / "json-extract" / "dev.jsonl", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines][:200]
    found = []
    print("| drafts | requests | streams | tok/s without | with | ratio, median (min .. max) | processor time, ratio | right of guessed | answers that differ; without drafts twice |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for setting in args.settings.split(","):
        for streams in map(int, args.streams.split(",")):
            extra = [*flags(setting), *args.smoa_args.split()]
            with drive.Ours(args.smoa, args.model, threads=args.threads, ctx=4096, parallel=streams, extra=extra) as program:
                for kind in args.kinds.split(","):
                    m = measure(program, bodies(kind, rows, args), streams, args.rounds)
                    found.append({"setting": setting, "streams": streams, "kind": kind, **m})
                    share = f"{m['right']} of {m['guessed']}" + (f" ({100 * m['right'] / m['guessed']:.0f} %)" if m["guessed"] else "")
                    print(f"| {setting} | {kind} | {streams} | {m['plain']:.1f} | {m['drafted']:.1f} | "
                          f"{m['ratio']:.2f} ({m['least']:.2f} .. {m['most']:.2f}) | {m['cpu']:.2f} | {share} | {m['differ']}; {m['differ_plain']} of {m['answers']} |",
                          flush=True)
    with drive.Ours(args.smoa, args.model, threads=args.threads, ctx=4096) as program:
        costs = row_costs(program)
    print("\nA step without drafts, by its rows: " + ", ".join(f"{n}: {ms:.1f} ms" for n, ms in costs.items()))
    found.append({"step_ms_by_rows": costs})
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    drive.run_main(main)
