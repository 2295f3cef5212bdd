#!/usr/bin/env python3
"""All starter adapters resident at once: bytes, memory over the plain base, tokens/s.

    scripts/bench/resident.py --smoa BIN --model GGUF --library DIR [--lines N] [--tokens N] [--rounds N] [-np N]

The same JSON lines run without adapters and with a different adapter on each line (all adapters of the library in turn),
the sides in turns; every answer has the same number of tokens. Memory is the largest resident set of the process, of
which the mapped model and adapters are part.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time


def run(options, names, adapters):
    """Tokens/s by the wall, start and load included, and the largest resident set in MiB."""
    lines = []
    for i in range(options.lines):
        chosen = [{"name": names[i % len(names)], "scale": 1.0}] if adapters else []
        lines.append(json.dumps({
            "messages": [{"role": "user", "content": f"Question {i}: what do you know of the number {i * 37}?"}],
            "adapters": chosen or "none", "n_predict": options.tokens, "temperature": 0, "ignore_eos": True,
            "format": "none",  # a card's format would end an answer early
        }))
    with tempfile.TemporaryFile("w+") as stdin, tempfile.TemporaryFile("w+") as stdout:
        stdin.write("\n".join(lines))
        stdin.seek(0)
        command = [options.smoa, "run", "--jsonl", "-np", str(options.np), "-m", options.model, "--library", options.library]
        began = time.monotonic()
        child = subprocess.Popen(command, stdin=stdin, stdout=stdout)
        _, status, usage = os.wait4(child.pid, 0)
        took = time.monotonic() - began
        if status:
            raise SystemExit(f"{command}: status {status}")
        stdout.seek(0)
        answers = [json.loads(line) for line in stdout]
    tokens = sum(a["usage"]["completion_tokens"] for a in answers)
    if tokens != options.lines * options.tokens:
        raise SystemExit(f"{tokens} tokens instead of {options.lines * options.tokens}")
    return tokens / took, usage.ru_maxrss / 1024


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--smoa", default=os.environ.get("SMOA_BIN"))
    p.add_argument("--model", default=os.environ.get("SMOA_DEFAULT_MODEL"))
    p.add_argument("--library", default=os.environ.get("SMOA_STARTER"))
    p.add_argument("--lines", type=int, default=20)
    p.add_argument("--tokens", type=int, default=32)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("-np", type=int, default=10)
    options = p.parse_args()
    for name in ("smoa", "model", "library"):
        if not getattr(options, name):
            p.error(f"--{name} is needed")
    shown = subprocess.run(
        [options.smoa, "adapter", "ls", "--json", "--library", options.library], capture_output=True, text=True, check=True
    ).stdout
    listed = [json.loads(line) for line in shown.splitlines() if line.startswith("{")]
    names = [one["name"] for one in listed]
    sizes = sum(one["bytes"] for one in listed)
    figures = {False: [], True: []}
    for round_ in range(options.rounds):
        for side in ((False, True) if round_ % 2 == 0 else (True, False)):
            figures[side].append(run(options, names, side))
    rate = {side: statistics.median(r for r, _ in f) for side, f in figures.items()}
    memory = {side: statistics.median(m for _, m in f) for side, f in figures.items()}
    print(f"adapters {len(names)}, {sizes} bytes")
    print(f"tokens/s: base {rate[False]:.1f}, all adapters {rate[True]:.1f}, ratio {rate[True] / rate[False]:.3f}")
    print(f"largest resident set: base {memory[False]:.1f} MiB, all adapters {memory[True]:.1f} MiB, "
          f"over it {memory[True] - memory[False]:.1f} MiB")


if __name__ == "__main__":
    main()
