"""The base model: exactly the numbers of the quantized GGUF file, dequantized by transformers' own loader."""

from __future__ import annotations

import os
from pathlib import Path

# Nothing is ever fetched: the model is a file.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase


def load(path: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in `dtype`, frozen, and its tokenizer with the chat template of the file."""
    if not path.is_file():
        raise SystemExit(f"--model {path}: no such file")
    folder, name = str(path.parent), path.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=dtype)
    model.requires_grad_(False)
    return model.eval(), tokenizer


def pick_device(asked: str) -> torch.device:
    """`auto`: an accelerator where there is one."""
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(asked)


def to_nf4(model: PreTrainedModel) -> PreTrainedModel:
    """The linears of the layers as NF4 blocks of bitsandbytes (QLoRA), everything else as it is.

    They are quantized when the model is moved to the accelerator.
    """
    if not torch.cuda.is_available():
        raise SystemExit("--dtype nf4 needs CUDA and bitsandbytes; on a CPU take bfloat16 or float32")
    try:
        import bitsandbytes as bnb
    except ImportError:
        raise SystemExit("--dtype nf4: bitsandbytes is missing; install the extra `cuda` of pyproject.toml") from None
    for layer in model.model.layers:
        for part in (layer.self_attn, layer.mlp):
            for name, linear in list(part.named_children()):
                if not isinstance(linear, torch.nn.Linear):
                    continue
                new = bnb.nn.Linear4bit(
                    linear.in_features, linear.out_features, bias=linear.bias is not None,
                    compute_dtype=torch.bfloat16, quant_type="nf4",
                )
                new.weight = bnb.nn.Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4")
                setattr(part, name, new)
    # PEFT looks here for how to wrap the linears.
    model.is_loaded_in_4bit = True
    return model
