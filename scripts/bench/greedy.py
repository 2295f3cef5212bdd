#!/usr/bin/env python3
"""Does smoa generate, greedily, exactly what llama-server generates?

Twenty prompts, base and with each adapter: the token ids of both programs must be the same. Where they differ,
the table says where, what each side has there, and by how much llama-server preferred its token over the next
best: a margin near zero is a tie that rounding decides, a large one is an error. Exit code 1 if any differs.
"""

import argparse
import json
import pathlib
import shlex

import drive

PROMPTS = {
    "story": "Once upon a time, in a small village by the sea, there lived a clockmaker who",
    "fact": "The capital of France is",
    "science": "Photosynthesis is the process by which plants",
    "list": "Here are five tips for better sleep:\n1.",
    "question": "Question: Why is the sky blue?\nAnswer:",
    "letter": "Dear Sir or Madam,\n\nI am writing to complain about",
    "numbers": "1, 1, 2, 3, 5, 8, 13,",
    "arithmetic": "Q: What is 17 + 26?\nA:",
    "python": "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n",
    "rust": "fn main() {\n    let words = vec![\"alpha\", \"beta\"];\n    for word in &words {\n",
    "sql": "-- the ten customers with the highest turnover\nSELECT",
    "json": "{\"name\": \"Ada Lovelace\", \"born\": 1815, \"known_for\": [",
    "html": "<!DOCTYPE html>\n<html>\n<head>\n<title>",
    "french": "Il était une fois une petite fille qui",
    "german": "Die Geschichte der Stadt beginnt im Jahr",
    "spanish": "La receta tradicional de la paella lleva",
    "unicode": "日本の首都は東京です。🙂 The emoji above means",
    "spaces": "   \n\n\tindented   text   with   odd   spaces ->",
    "chat": "<|im_start|>user\nName three primary colours.<|im_end|>\n<|im_start|>assistant\n",
    "chat, system": "<|im_start|>system\nYou answer in one short sentence.<|im_end|>\n<|im_start|>user\n"
                    "What does a compiler do?<|im_end|>\n<|im_start|>assistant\n",
}


def first_difference(a, b):
    """Index of the first place where the lists differ, None if they are equal."""
    for i, (x, y) in enumerate(zip(a, b)):
        if x != y:
            return i
    return None if len(a) == len(b) else min(len(a), len(b))


def margin(peer, body, index):
    """How much more likely (in nats) the peer held its token than the next best, at `index`."""
    answer = peer.complete({**body, "n_predict": index + 1, "n_probs": 2})
    steps = answer.get("completion_probabilities") or []
    top = steps[index].get("top_logprobs", []) if index < len(steps) else []
    return top[0]["logprob"] - top[1]["logprob"] if len(top) > 1 else None


def tokens_of(program, answer):
    if not isinstance(answer.get("tokens"), list):
        program.fail("the answer has no `tokens` (asked for with return_tokens)")
    return answer["tokens"]


def compare(options, adapter):
    """Run all prompts on both sides; the rows, one for each prompt."""
    extra = shlex.split(options.peer_args) + (["--lora", str(adapter)] if adapter else [])
    wanted = {"n_predict": options.n, "temperature": 0, "ignore_eos": not options.stop_at_eos,
              "cache_prompt": False, "return_tokens": True}
    mine = {"adapters": "none", **({"lora": [{"path": str(adapter), "scale": 1.0}]} if adapter else {})}
    shared = {"threads": options.threads}
    rows = []
    with drive.Peer(options.peer, options.model, ctx=options.ctx, extra=extra, **shared) as peer, \
            drive.Ours(options.smoa, options.model, ctx=options.ctx * options.parallel, parallel=options.parallel,
                       extra=shlex.split(options.smoa_args), **shared) as ours:
        bodies = [{"prompt": prompt, **wanted} for prompt in PROMPTS.values()]
        theirs = [peer.complete(body) for body in bodies]
        if options.parallel > 1:
            answers = ours.complete_all([{**body, **mine} for body in bodies])
        else:
            answers = [ours.complete({**body, **mine}) for body in bodies]
        for name, body, answer, reference in zip(PROMPTS, bodies, answers, theirs):
            a, b = tokens_of(ours, answer), tokens_of(peer, reference)
            at = first_difference(a, b)
            row = {"adapter": adapter.name if adapter else None, "prompt": name, "equal": at is None,
                   "n": len(b), "ours": a, "peer": b, "ours_text": answer["content"],
                   "peer_text": reference["content"], "at": at, "margin": None}
            if at is not None and at < len(b):
                row["margin"] = margin(peer, body, at)
            rows.append(row)
    return rows


def describe(row):
    if row["equal"]:
        return ""
    at = row["at"]
    ours, peer = (str(side[at]) if at < len(side) else "end" for side in (row["ours"], row["peer"]))
    text = f"token {at}: ours {ours}, peer {peer}"
    if row["margin"] is not None:
        text += f", margin {row['margin']:.4f}"
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    drive.add_common_arguments(parser)
    parser.add_argument("--adapter", type=pathlib.Path, action="append", default=[], metavar="FILE",
                        help="also compare with this LoRA adapter in GGUF (repeatable)")
    parser.add_argument("-n", type=int, default=64, metavar="N", help="tokens per prompt (%(default)s)")
    parser.add_argument("-c", "--ctx", type=int, default=1024, metavar="C", help="context per sequence (%(default)s)")
    parser.add_argument("--parallel", type=int, default=1, metavar="N",
                        help="let smoa decode so many prompts in one batch (%(default)s); the peer always decodes one")
    parser.add_argument("--stop-at-eos", action="store_true", help="let answers end by themselves")
    options = parser.parse_args()
    drive.check_files(options.smoa, options.peer, options.model, *options.adapter)

    rows = []
    print("| adapter | prompt | tokens | equal | first difference |")
    print("| --- | --- | ---: | --- | --- |")
    for adapter in [None, *options.adapter]:
        for row in compare(options, adapter):
            rows.append(row)
            print(f"| {row['adapter'] or '(base)'} | {row['prompt']} | {row['n']} "
                  f"| {'yes' if row['equal'] else 'NO'} | {describe(row)} |", flush=True)
    different = sum(not row["equal"] for row in rows)
    print(f"\n{len(rows) - different} of {len(rows)} equal")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1, ensure_ascii=False))
    return 1 if different else 0


if __name__ == "__main__":
    drive.run_main(main)
