"""Tiers: what kind of adapter, how large, how fast it learns."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from peft import IA3Config, LoKrConfig, LoraConfig, get_peft_model

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
LINEARS = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Preset:
    """kind: lora, rslora, dora, ia3, lokr or soft. first: the first layer that is adapted, of 30."""

    kind: str
    rank: int = 0
    alpha: float = 0.0
    rate: float = 2e-3
    first: int = 12
    soft: int = 0


PRESETS = {
    "ultralight": Preset("ia3", rate=2e-2, first=0),
    "ultralight-soft": Preset("soft", rate=5e-2, first=0, soft=16),
    "ultralight-both": Preset("ia3", rate=2e-2, first=0, soft=16),
    "light": Preset("lora", 4, 16, 2e-3),
    "light-rs": Preset("rslora", 4, 8, 2e-3),
    "light-lokr": Preset("lokr", 4, 4, 2e-3),
    "medium": Preset("dora", 12, 24, 1e-3),
    "medium-lora": Preset("lora", 12, 24, 1e-3),
    "heavy": Preset("dora", 24, 48, 7e-4),
    "heavy-lora": Preset("lora", 24, 48, 7e-4),
}


def preset(name: str, **changes) -> Preset:
    if name not in PRESETS:
        raise SystemExit(f"--tier {name}: unknown; one of {', '.join(PRESETS)}")
    return replace(PRESETS[name], **{k: v for k, v in changes.items() if v is not None})


def attach(model, chosen: Preset, seed: int, embedded: torch.Tensor | None = None):
    """The PEFT model and its soft prompt, if any. `embedded`: embeddings a soft prompt begins with: [tokens, width]."""
    torch.manual_seed(seed)
    layers = list(range(chosen.first, model.config.num_hidden_layers))
    peft = None
    if chosen.kind in ("lora", "rslora", "dora"):
        config = LoraConfig(
            r=chosen.rank, lora_alpha=chosen.alpha, target_modules=LINEARS, layers_to_transform=layers,
            use_rslora=chosen.kind == "rslora", use_dora=chosen.kind == "dora", task_type="CAUSAL_LM",
        )
        peft = get_peft_model(model, config)
    elif chosen.kind == "lokr":
        config = LoKrConfig(
            r=chosen.rank, alpha=chosen.alpha, target_modules=LINEARS, layers_to_transform=layers, task_type="CAUSAL_LM"
        )
        peft = get_peft_model(model, config)
    elif chosen.kind == "ia3":
        names = "|".join(str(n) for n in layers)
        config = IA3Config(
            target_modules=rf".*\.({names})\.(self_attn\.(k_proj|v_proj)|mlp\.down_proj)",
            feedforward_modules=rf".*\.({names})\.mlp\.down_proj",
            task_type="CAUSAL_LM",
        )
        peft = get_peft_model(model, config)
    soft = None
    if chosen.soft:
        if embedded is None or len(embedded) < chosen.soft:
            raise ValueError("a soft prompt needs embeddings to begin with")
        soft = torch.nn.Parameter(embedded[: chosen.soft].float().clone())
    if peft is not None:
        for module in peft.modules():
            # The layers take bfloat16 as it comes; autocast brings the adapter's own weights to it.
            if hasattr(module, "cast_input_dtype_enabled"):
                module.cast_input_dtype_enabled = False
    return peft, soft
