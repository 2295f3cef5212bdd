#!/usr/bin/env python3
"""Make LoRA adapters of random weights for a GGUF base model.

For tests of the plumbing and for benchmarks: they change what the model says, and mean nothing. The same seed
gives the same file. Adapter number i of a run has the seed SEED + i and the name random-SEED+i.gguf.

needs: python3 -m pip install gguf numpy
"""

import argparse
import pathlib
import sys

try:
    import gguf
    import numpy as np
except ImportError as error:
    sys.exit(f"random_lora.py needs the Python package {error.name}: python3 -m pip install gguf numpy")

LINEARS = "attn_q,attn_k,attn_v,attn_output,ffn_gate,ffn_up,ffn_down"


def linears_of(base, names):
    """(tensor name, input width, output width) of the matrices that an adapter may change."""
    found = []
    for tensor in base.tensors:
        parts = tensor.name.split(".")
        if len(parts) == 4 and parts[0] == "blk" and parts[2] in names and parts[3] == "weight":
            if len(tensor.shape) == 2:  # GGUF names the input width first
                found.append((tensor.name, int(tensor.shape[0]), int(tensor.shape[1])))
    return found


def write(path, architecture, linears, options, seed):
    rng = np.random.default_rng(seed)
    dtype = np.float32 if options.f32 else np.float16
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_type("adapter")
    writer.add_name(path.stem)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", options.alpha)
    for name, width_in, width_out in linears:
        for suffix, shape in (("lora_a", (options.rank, width_in)), ("lora_b", (width_out, options.rank))):
            values = rng.standard_normal(shape, dtype=np.float32) * options.std
            writer.add_tensor(f"{name}.{suffix}", values.astype(dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=pathlib.Path, help="the GGUF model the adapters are for")
    parser.add_argument("out", type=pathlib.Path, help="the folder to write to")
    parser.add_argument("-n", "--count", type=int, default=1, metavar="N", help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first (%(default)s)")
    parser.add_argument("--rank", type=int, default=8, help="rank (%(default)s)")
    parser.add_argument("--alpha", type=float, default=8.0, help="alpha; the scale is alpha / rank (%(default)s)")
    parser.add_argument("--std", type=float, default=0.03,
                        help="standard deviation of the weights; 0 makes adapters that change nothing (%(default)s)")
    parser.add_argument("--targets", default=LINEARS, help="matrices to adapt (%(default)s)")
    parser.add_argument("--f32", action="store_true", help="store 32-bit floats instead of 16-bit ones")
    options = parser.parse_args()

    base = gguf.GGUFReader(str(options.base))
    architecture = base.fields["general.architecture"].contents()
    linears = linears_of(base, set(options.targets.split(",")))
    if not linears:
        sys.exit(f"{options.base} has none of the matrices {options.targets}")
    options.out.mkdir(parents=True, exist_ok=True)
    for seed in range(options.seed, options.seed + options.count):
        path = options.out / f"random-{seed}.gguf"
        write(path, architecture, linears, options, seed)
        print(path)


if __name__ == "__main__":
    main()
