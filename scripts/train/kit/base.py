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
