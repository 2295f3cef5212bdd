#!/usr/bin/env python3
"""Our logits against PyTorch's, for every type of PEFT adapter, in a table.

    scripts/bench/logits_table.sh [--folders DIR] [--smoa FILE] [--as-lora] [--json FILE]

The folders are those that scripts/train/make_peft_fixtures.py makes with the real `peft`: a tiny llama and an adapter
of each type, with the logits that PyTorch gave (reference.safetensors; in tests/corpus/peft unless told otherwise).
The base is written anew with F32 weights, `smoa adapter add --quantize f32` imports every folder into a new library, and
`smoa run --jsonl` answers with the probabilities of all tokens. Both sides as log-probabilities, so that a constant
between them does not matter:

    distance   the largest difference of any token
    change     the largest difference that the adapter makes, by PyTorch: what the distance is to be measured by
    stated     the relative error that the import told (0: exact)

Exact types must come within 1e-3. A folder that is refused is told with the reason. Exit code 1 when an exact type is
further away or refused. Needs gguf and numpy (logits_table.sh brings them).
"""

import argparse
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

import gguf
import numpy as np

from drive import ROOT, SMOA, Failure, program_path

TOKENS = [1, 70, 104, 111, 44, 200]  # as in make_peft_fixtures.py
EXACT = 1e-3


def tensors_of(path):
    """The F32 tensors of a safetensors file."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    start = 8 + length
    ranges = {name: (start + at, start + end) for name, entry in header.items() for at, end in [entry["data_offsets"]]}
    return {name: np.frombuffer(data[at:end], np.float32) for name, (at, end) in ranges.items()
            if header[name]["dtype"] == "F32"}


def write_f32(source, target):
    """The model with every weight in F32, all keys kept."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.get_field("general.architecture").contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
            continue
        kinds = field.types
        sub = kinds[1] if kinds[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kinds[0], sub_type=sub)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for tensor in reader.tensors:
        numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        writer.add_tensor(tensor.name, numbers.reshape([int(n) for n in reversed(tensor.shape)]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def run(arguments, text=""):
    return subprocess.run([str(a) for a in arguments], input=text, capture_output=True, text=True, timeout=300,
                          check=False)


def log_softmax(logits):
    shifted = logits.astype(np.float64) - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def ours(smoa, model, library, names, vocabulary):
    """Log-probabilities of all tokens by name, or the message of the refusal. None stands for the plain base."""
    lines = []
    for name in names:
        line = {"id": name, "prompt": TOKENS, "n_predict": 1, "temperature": 0, "ignore_eos": True, "n_probs": vocabulary,
                "cache_prompt": False}
        line["adapters"] = "none" if name is None else [{"name": name, "scale": 1.0}]
        lines.append(json.dumps(line))
    done = run([smoa, "run", "-m", model, "--library", library, "--jsonl", "-fa", "off", "-ctk", "f32", "-ctv", "f32"],
               "\n".join(lines) + "\n")
    answers = {}
    for line in done.stdout.splitlines():
        result = json.loads(line)
        if "error" in result:
            answers[result["id"]] = result["error"]["message"]
            continue
        told = next(value for key, value in result.items() if "probabilities" in key or key == "logprobs")
        told = told["content"] if isinstance(told, dict) else told
        found = np.full(vocabulary, np.nan)
        for candidate in told[0]["top_logprobs"]:
            found[candidate["id"]] = candidate["logprob"]
        answers[result["id"]] = found
    if set(answers) != set(names):
        raise Failure(f"smoa run answered {len(answers)} of {len(names)} lines: {done.stderr.strip()}")
    return answers


def measure(arguments, work):
    model, library = work / "base-f32.gguf", work / "library"
    write_f32(arguments.folders / "base.gguf", model)
    plain = log_softmax(tensors_of(arguments.folders / "base.logits.safetensors")["logits"])
    folders = sorted(f.parent for f in arguments.folders.glob("*/reference.safetensors"))
    rows = []
    for folder in folders:
        extra = ["--as-lora", "--accept-error", "--rank", "64"] if arguments.as_lora else []
        done = run([arguments.smoa, "adapter", "add", "-m", model, folder, "--library", library, "--quantize", "f32", *extra])
        row = {"folder": folder.name, "refused": done.stderr.strip() if done.returncode else None}
        if done.returncode == 0:
            shown = json.loads(run([arguments.smoa, "adapter", "show", folder.name, "--json", "--library", library]).stdout)
            row |= {"kind": shown["kind"], "rank": shown["rank_max"], "stated": shown.get("relative_error", 0.0)}
        rows.append(row)
    added = [row["folder"] for row in rows if not row["refused"]]
    answers = ours(arguments.smoa, model, library, [None, *added], len(plain))
    base = {"folder": "(none)", "kind": "base", "rank": 0, "stated": 0.0, "refused": None, "change": 0.0,
            "distance": float(np.abs(answers[None] - plain).max())}
    for row in rows:
        logits = tensors_of(arguments.folders / row["folder"] / "reference.safetensors").get("logits")
        if row["refused"]:
            continue
        answer, theirs = answers[row["folder"]], log_softmax(logits)
        if isinstance(answer, str):
            row["refused"] = answer
            continue
        row["change"] = float(np.abs(theirs - plain).max())
        row["distance"] = float(np.abs(answer - theirs).max())
    return [base, *rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folders", type=pathlib.Path, default=ROOT / "tests/corpus/peft", metavar="DIR")
    parser.add_argument("--smoa", type=program_path, default=SMOA, metavar="FILE")
    parser.add_argument("--as-lora", action="store_true", help="convert DoRA and IA3 to plain LoRA of rank 64")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the rows here as well")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        rows = measure(arguments, pathlib.Path(work))
    print("| folder | kind | rank | stated error | change of log-probabilities | distance from PyTorch |")
    print("|---|---|---:|---:|---:|---:|")
    wrong = 0
    for row in rows:
        if row["refused"]:
            print(f"| {row['folder']} | {row.get('kind', '-')} | {row.get('rank', '-')} | - | - | {row['refused']} |")
            wrong += 1
            continue
        far = row["stated"] == 0 and row["distance"] > EXACT
        wrong += far
        print(f"| {row['folder']} | {row['kind']} | {row['rank']} | {row['stated']:.1e} | {row['change']:.3f} | "
              f"{row['distance']:.1e}{' (too far)' if far else ''} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"logits_table.py: {failure}")
