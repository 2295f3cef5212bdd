#!/usr/bin/env python3
"""What the kept state of a prefix saves: time to the first token of the first request that uses it.

Makes prefixes of 8, 32 and 64 examples in a library of its own (`smoa adapter from-examples`) and asks one question of
each in a fresh process, in turns: as usual, which restores the kept state, and with `cache_prompt` off, which reads the
messages. The time is the program's own: waiting, restoring and reading, from the request to the first token. The
answers are compared.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile


def run(command, stdin=""):
    done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
    return done


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoa", default="target/release/smoa", help="the program [default: %(default)s]")
    parser.add_argument("--model", default="models/SmolLM2-135M-Instruct.Q4_1.gguf", help="[default: %(default)s]")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each kind [default: %(default)s]")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        library = folder / "library"
        states = library / "derived" / "states"

        def ask(name, cached):
            line = {"messages": [{"role": "user", "content": "How many stones are 17 and 26 stones?"}],
                    "n_predict": 8, "temperature": 0, "adapters": [{"name": name}], "cache_prompt": cached}
            flags = ["--jsonl", "-m", args.model, "-c", "8192", "--library", str(library)]
            answer = json.loads(run([args.smoa, "run", *flags], json.dumps(line)).stdout)
            timings = answer["timings"]
            return timings["queued_ms"] + timings["prompt_ms"], timings["cache_n"], answer["content"]

        print("| examples | tokens | state | read | restored | same answer |")
        print("|---:|---:|---:|---:|---:|---|")
        for examples in (8, 32, 64):
            lines = [[f"How many stones are {i} and {2 * i + 1} stones?", f"They are {3 * i + 1} stones."]
                     for i in range(1, examples + 1)]
            source, name = folder / f"e{examples}.jsonl", f"examples-{examples}"
            source.write_text("\n".join(map(json.dumps, lines)) + "\n")
            run([args.smoa, "adapter", "from-examples", str(source), "--name", name, "-m", args.model,
                 "--library", str(library)])
            size = max(path.stat().st_size for path in states.glob("*.state"))
            restored, read = [], []
            for _ in range(args.rounds):
                restored.append(ask(name, True))
                read.append(ask(name, False))
            restored_ms, read_ms = (statistics.median(ms for ms, _, _ in all) for all in (restored, read))
            same = len({text for _, _, text in restored + read}) == 1
            print(f"| {examples} | {restored[0][1]} | {size / 1e6:.1f} MB | {read_ms:.0f} ms | {restored_ms:.0f} ms | "
                  f"{'yes' if same else 'no'} |", flush=True)


if __name__ == "__main__":
    main()
