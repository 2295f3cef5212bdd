#!/usr/bin/env python3
"""Formats end to end: real generation under schemas with small token limits, checked by an independent validator; and
the speed of constrained against free generation, in turns within one process.

  formats_e2e.py --smoa BIN --model FILE.gguf --schemas FILE.jsonl [--seeds 3] [--limit 160] [--json OUT]
  formats_e2e.py --smoa BIN --model FILE.gguf --speed [--rounds 7] [--tokens 96] [--json OUT]

FILE.jsonl has rows {"id", "schema"}. The validator is the Python package `jsonschema`. An answer counts as right when
it parses and is valid; a schema that smoa refuses counts as refused, with its reason; an answer whose limit is smaller
than its schema's least answer cannot be right and is counted as too long for the limit where smoa says so.
"""

import argparse
import collections
import json
import os
import statistics
import subprocess
import sys

PROMPT = "Make up one example of this and answer with JSON only."
FREE = [
    "Describe a village by the sea.",
    "Tell me how bread is made.",
    "Write about a day in a library.",
    "Explain why leaves are green.",
]
# Long keys and long constants: much of the text is no choice of the model.
FORCED = {
    "type": "object",
    "properties": {
        "apiVersion": {"const": "networking.k8s.io/v1"},
        "kind": {"const": "NetworkPolicy"},
        "metadata": {"type": "object", "properties": {"creationTimestamp": {"type": "null"},
                                                      "deletionGracePeriodSeconds": {"type": "integer"}},
                     "required": ["creationTimestamp", "deletionGracePeriodSeconds"], "additionalProperties": False},
        "terminationGracePeriodSeconds": {"type": "integer"},
        "automountServiceAccountToken": {"type": "boolean"},
        "restartPolicy": {"enum": ["AlwaysRestartTheContainer", "NeverRestartTheContainer"]}},
    "required": ["apiVersion", "kind", "metadata", "terminationGracePeriodSeconds", "automountServiceAccountToken",
                 "restartPolicy"],
    "additionalProperties": False}
TOOL = {
    "anyOf": [
        {"type": "object", "properties": {"name": {"const": "get_weather"}, "arguments": {
            "type": "object", "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}},
            "required": ["city", "unit"], "additionalProperties": False}},
         "required": ["name", "arguments"], "additionalProperties": False},
        {"type": "object", "properties": {"name": {"const": "send_mail"}, "arguments": {
            "type": "object", "properties": {"to": {"type": "string"}, "subject": {"type": "string"},
                                             "body": {"type": "string"}},
            "required": ["to", "subject", "body"], "additionalProperties": False}},
         "required": ["name", "arguments"], "additionalProperties": False}]}
SPEED = {
    "json": {"format": "json"},
    "tool call": {"json_schema": TOOL},
    "forced text": {"json_schema": FORCED},
    "forced text, order of the schema": {"json_schema": FORCED, "json_schema_key_order": "schema"},
    "schema": {"json_schema": {
        "type": "object",
        "properties": {
            "title": {"type": "string"}, "year": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "author": {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
                       "required": ["name", "age"]}},
        "required": ["title", "year", "tags", "author"]}},
    "sql-select": {"format": "sql-select"},
}


class Smoa:
    """One `smoa run --jsonl`, asked line by line so that requests never overlap."""

    def __init__(self, args):
        command = [args.smoa, "run", "--jsonl", "-m", args.model, "-t", str(args.threads), *args.smoa_args]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True, bufsize=1)

    def ask(self, row):
        self.process.stdin.write(json.dumps(row) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"formats_e2e: smoa ended with {self.process.wait()} at {row.get('id')}")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        return self.process.wait()


def valid(validators, schema, text):
    try:
        value = json.loads(text)
    except ValueError as error:
        return f"does not parse: {error}"
    kind = validators.validator_for(schema, default=validators.Draft202012Validator)
    errors = list(kind(schema, format_checker=kind.FORMAT_CHECKER).iter_errors(value))
    return f"not valid: {errors[0].message[:120]}" if errors else None


def generate(args):
    try:
        from jsonschema import validators
    except ImportError:
        sys.exit("formats_e2e: the Python package 'jsonschema' is needed (pip install 'jsonschema[format]')")
    with open(args.schemas, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    part, parts = (int(n) for n in args.part.split("/"))
    asked = [(row, seed) for row in rows for seed in range(args.seeds)][part - 1::parts]
    lines = [json.dumps({
        "id": f"{row['id']}#{seed}", "prompt": f"{PROMPT}\n{json.dumps(row['schema'])[:600]}", "chat": True,
        "json_schema": row["schema"], "n_predict": args.limit, "seed": seed, "temperature": 0.0 if seed == 0 else 1.0,
    }) for row, seed in asked]
    command = [args.smoa, "run", "--jsonl", "-m", args.model, "-t", str(args.threads), "-np", str(args.parallel),
               "-c", str(args.parallel * 2048), *args.smoa_args]
    run = subprocess.run(command, input="\n".join(lines) + "\n", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                         text=True, check=False)
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    if len(answers) != len(asked):
        sys.exit(f"formats_e2e: {len(asked)} lines asked, {len(answers)} answered, exit code {run.returncode}")
    counts, wrong, refused = collections.Counter(), [], collections.Counter()
    for (row, seed), answer in zip(asked, answers):
        error = answer.get("error")
        if error and "content" not in answer:
            counts["refused"] += 1
            refused[error["message"][:100]] += 1
            continue
        problem = valid(validators, row["schema"], answer["content"])
        counts["right" if problem is None else "wrong"] += 1
        counts[f"finish {answer['finish_reason']}"] += 1
        if problem:
            wrong.append({"id": answer["id"], "problem": problem, "finish": answer["finish_reason"],
                          "tail": answer["content"][-60:]})
    whole = counts["right"] + counts["wrong"]
    print(f"e2e: part {part} of {parts} of {len(rows)} schemas x {args.seeds} seeds, {args.limit} tokens at most: "
          f"{counts['right']} of {whole} answers right, {counts['refused']} refused; " +
          ", ".join(f"{name} {count}" for name, count in sorted(counts.items()) if name.startswith("finish")))
    for message, count in refused.most_common(8):
        print(f"  refused {count}: {message}")
    for row in wrong[:10]:
        print(f"  wrong: {row}")
    if args.answers:
        with open(args.answers, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(answer) + "\n" for answer in answers)
    return {"counts": counts, "wrong": wrong, "refused": refused}, not wrong


def rate(answer):
    timings = answer["timings"]
    return (timings["predicted_n"] - 1) / timings["predicted_ms"] * 1e3


def speed(args):
    if os.getloadavg()[0] > 2.5:
        print(f"e2e: the machine is busy (load {os.getloadavg()[0]:.1f}); the ratios below are rough", file=sys.stderr)
    smoa = Smoa(args)
    result = {}
    for name, form in SPEED.items():
        ratios, free_rates, bound_rates = [], [], []
        for turn in range(args.rounds):
            # No stop before the last token on the free side; who goes first changes every turn.
            base = {"prompt": FREE[turn % len(FREE)], "chat": True, "n_predict": args.tokens, "seed": turn,
                    "temperature": 0.8, "cache_prompt": False}
            both = [("free", {**base, "ignore_eos": True}), ("bound", {**base, **form})]
            rates = {}
            for side, request in both if turn % 2 == 0 else both[::-1]:
                answer = smoa.ask({"id": f"{name}-{side}-{turn}", **request})
                if answer.get("timings") and answer["timings"]["predicted_n"] > 8:
                    rates[side] = rate(answer)
            if len(rates) == 2:
                ratios.append(rates["bound"] / rates["free"])
                free_rates.append(rates["free"])
                bound_rates.append(rates["bound"])
        if not ratios:
            print(f"e2e speed {name}: every answer was too short to time")
            continue
        result[name] = {"ratio": statistics.median(ratios), "free": statistics.median(free_rates),
                        "constrained": statistics.median(bound_rates), "rounds": len(ratios)}
        print(f"e2e speed {name}: {result[name]['constrained']:.1f} tokens/s constrained, {result[name]['free']:.1f} "
              f"free, median ratio {result[name]['ratio']:.3f} of {len(ratios)} rounds")
    smoa.close()
    return result, True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoa", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--schemas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=160)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--part", default="1/1", help="one part of the answers: 2/5")
    parser.add_argument("--parallel", type=int, default=8)
    parser.add_argument("--answers", help="file to which the answers are added")
    parser.add_argument("--json")
    parser.add_argument("smoa_args", nargs="*", help="further flags for smoa, after --")
    args = parser.parse_args()
    results, good = {}, True
    if args.schemas:
        results["generate"], good = generate(args)
    if args.speed:
        results["speed"], fine = speed(args)
        good = good and fine
    if not results:
        parser.error("give --schemas FILE.jsonl or --speed")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)
            file.write("\n")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
