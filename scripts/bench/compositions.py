#!/usr/bin/env python3
"""What compositions cost: the starter adapters alone, side by side by their names, in mixes, mixes of mixes and chains.

Makes a library of models/adapters with a trained router and compositions of them, keeps one `smoa run --jsonl` open, and asks the same
question of each in turns, one at a time: as many tokens from every stage, no reuse of prefixes. Times are from the line
written to the line read; medians. Mixes are compared with the same adapters by their names, each as the first request
of a program of its own, so that all find the same empty cache: the answers must be equal to the letter.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from drive import MODEL, ROOT, SMOA, Failure, check_files, program_path

QUESTION = "Extract the intent and its slots from the request. Answer with one line of JSON.\n\nwill it snow in Oslo tomorrow"

# What is asked: for people, the adapters of the request, adapters in a pass, passes.
CASES = [
    ("the base", [], 0, 1),
    ("one adapter", ["json-extract"], 1, 1),
    ("two by name", ["json-extract=0.7", "sql=0.3"], 2, 1),
    ("a mix of two", ["two"], 2, 1),
    ("four by name", ["json-extract=0.35", "sql=0.15", "classify=0.25", "banking=0.25"], 4, 1),
    ("a mix of four", ["four"], 4, 1),
    ("a mix of two mixes", ["nested"], 4, 1),
    ("a mix, five deep", ["deep5"], 2, 1),
    ("two, weighed by route", ["routed"], 2, 1),
    ("two that change at a marker", ["change"], 1, 1),
    ("a chain of two adapters", ["chain2"], 1, 2),
    ("a chain of three", ["chain3"], 1, 3),
    ("a chain of two mixes of mixes", ["chain-nested"], 4, 2),
]
COMPOSED = {
    "two": ["json-extract=0.7+sql=0.3"],
    "pair": ["classify=0.5+banking=0.5"],
    "four": ["json-extract=0.35+sql=0.15+classify=0.25+banking=0.25"],
    "nested": ["two=0.5+pair=0.5"],
    "deep1": ["two"], "deep2": ["deep1"], "deep3": ["deep2"], "deep4": ["deep3"], "deep5": ["deep4"],
    "routed": ["json-extract+sql", "--by", "route"],
    # The first adapter's answers have this text a few tokens after their beginning.
    "change": ["json-extract", "sql", "--at", '"intent"'],
    "chain2": ["json-extract", "classify"],
    "chain3": ["json-extract", "classify", "sql"],
    "chain-nested": ["nested", "nested"],
}
EQUAL = [("a mix of two", "two by name"), ("a mix of four", "four by name"), ("a mix of two mixes", "four by name"),
         ("a mix, five deep", "two by name")]


def adapter(args, *words):
    done = subprocess.run([args.smoa, "adapter", *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(f"smoa adapter {' '.join(words)}: exit {done.returncode}: {done.stderr.strip()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoa", type=program_path, default=SMOA, metavar="FILE", help="our binary (%(default)s)")
    parser.add_argument("-m", "--model", type=pathlib.Path, default=MODEL, metavar="FILE", help="model (%(default)s)")
    parser.add_argument("-t", "--threads", type=int, default=2, metavar="N", help="threads (%(default)s)")
    parser.add_argument("-n", "--tokens", type=int, default=32, metavar="N", help="tokens of each answer (%(default)s)")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="requests of each kind (%(default)s)")
    parser.add_argument("--only", metavar="WORDS", help="only cases with one of these in their names (comma between)")
    args = parser.parse_args()
    wanted = args.only.split(",") if args.only else [""]
    cases = [case for case in CASES if any(word in case[0] for word in wanted)]
    equal = [pair for pair in EQUAL if all(name in [case[0] for case in cases] for name in pair)]
    check_files(args.smoa, args.model)
    with tempfile.TemporaryDirectory() as folder:
        library = str(pathlib.Path(folder) / "library")
        adapter(args, "add", str(ROOT / "models" / "adapters"), "-m", str(args.model), "--library", library)
        adapter(args, "train-router", str(ROOT / "models" / "adapters" / "general.train.jsonl"), "--library", library)
        for name, stages in COMPOSED.items():
            adapter(args, "compose", name, *stages, "--library", library)
        command = [args.smoa, "run", "--jsonl", "-m", args.model, "-c", "2048", "-t", args.threads, "--library", library]

        def start():
            return subprocess.Popen([str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                    stderr=subprocess.DEVNULL, text=True)

        def stop(program):
            program.stdin.close()
            program.wait(timeout=60)

        def ask(program, adapters):
            chosen = [{"name": name, "scale": float(scale or 1)} for name, _, scale in
                      (text.partition("=") for text in adapters)]
            line = {"messages": [{"role": "user", "content": QUESTION}], "n_predict": args.tokens, "ignore_eos": True,
                    "temperature": 0, "cache_prompt": False, "adapters": chosen}
            began = time.perf_counter()
            program.stdin.write(json.dumps(line) + "\n")
            program.stdin.flush()
            answer = json.loads(program.stdout.readline() or '{"error": "ended"}')
            if "timings" not in answer:
                raise Failure(f"{adapters}: {answer}")
            if adapters == ["change"] and answer["stages"][1]["from_token"] is None:
                raise Failure(f"the marker of 'change' never came: {answer['content']}")
            return (time.perf_counter() - began) * 1e3, answer["timings"], answer["content"]

        program = start()
        found = {name: [] for name, *_ in cases}
        for turn in range(args.rounds + 1):
            for name, adapters, *_ in cases:
                answer = ask(program, adapters)
                if turn:  # the first turn opens files and warms caches
                    found[name].append(answer)
        stop(program)
        texts = {}
        for name, adapters, *_ in cases:
            if any(name in pair for pair in equal):
                program = start()
                texts[name] = ask(program, adapters)[2]
                stop(program)
    print("| what | adapters in a pass | passes | whole answer | to the first token | per token after it |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, _, adapters, passes in cases:
        whole = statistics.median(ms for ms, _, _ in found[name])
        last = statistics.median(t["predicted_ms"] for _, t, _ in found[name])
        each = statistics.median(t["predicted_ms"] / max(1, t["predicted_n"]) for _, t, _ in found[name])
        print(f"| {name} | {adapters} | {passes} | {whole:.0f} ms | {whole - last:.0f} ms | {each:.2f} ms |")
    wrong = [f"{one} and {other}" for one, other in equal if texts[one] != texts[other]]
    print(f"\nanswers equal to those of the same adapters by name: {len(equal) - len(wrong)} of {len(equal)}")
    several = [name for name, all in found.items() if len({text for *_, text in all}) > 1]
    print(f"asked again and again in one program, more than one answer (the cache's cells lie otherwise): {several or 'none'}")
    if wrong:
        raise Failure("different answers: " + ", ".join(wrong))


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"compositions.py: {failure}")
