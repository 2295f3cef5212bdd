#!/usr/bin/env python3
"""Makes the PEFT folders of tests/corpus/peft, with PyTorch's own answers beside them.

    python -m venv /tmp/peft && /tmp/peft/bin/pip install torch transformers peft safetensors gguf
    /tmp/peft/bin/python scripts/train/make_peft_fixtures.py --llama-cpp LLAMA_CPP_SOURCE

A tiny llama (2 layers, width 64, 4 heads, 2 key heads, 288 tokens) with weights of a fixed seed, rounded to F16, goes
to base.gguf by hand: rows of q and k in llama.cpp's order. For every type of adapter, random weights stand for trained
ones, and the folder gets what PEFT saves, and reference.safetensors:

    delta.MODULE   the merged weight minus the base weight, times 6 fixed columns: [outputs, 6]
    probe.N        those columns, for N inputs: [N, 6]
    logits         of the adapted model after TOKENS, the last position: [288]; aLoRA is active from token 111 on

base.logits.safetensors holds the logits without an adapter, blocks.safetensors quantized blocks. arch_NAME/ are LoRA
folders for small models of other architectures, with llama.cpp's own conversion (llama_cpp.gguf) to compare with.
refused_NAME/ hold configurations alone.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import peft
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

VOCAB, WIDTH, HEADS, KV_HEADS, FFN, LAYERS = 288, 64, 4, 2, 64, 2
COLUMNS = 6
TOKENS = [1, 70, 104, 111, 44, 200]
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
LINEARS = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]
HF_KEYS = ("adapter_config.json", "adapter_model.safetensors")


def base_model() -> LlamaForCausalLM:
    """The same weights every time, exact in F16."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=FFN, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, max_position_embeddings=128,
        tie_word_embeddings=False, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
    )
    model = LlamaForCausalLM(config).float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                weight.copy_(torch.randn_like(weight) * 0.15)
            weight.copy_(weight.half().float())
    return model


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """LlamaModel.permute of llama.cpp's converter."""
    rows = weight.shape[0]
    return weight.reshape(heads, 2, rows // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def write_base(model: LlamaForCausalLM, path: Path) -> None:
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny llama of the PEFT fixtures")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCAB)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    texts = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    texts += [f"▁t{index}" for index in range(VOCAB - len(texts))]
    normal, control, byte, unknown = 1, 3, 6, 2
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(texts)
    writer.add_token_scores([0.0] * VOCAB)
    writer.add_token_types([unknown, control, control] + [byte] * 256 + [normal] * (VOCAB - 259))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
             "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
             "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    for name, weight in model.state_dict().items():
        data = weight.numpy()
        name = name.removesuffix(".weight").removeprefix("model.")
        if name.startswith("layers."):
            _, layer, rest = name.split(".", 2)
            if rest == "self_attn.q_proj":
                data = permuted(data, HEADS)
            if rest == "self_attn.k_proj":
                data = permuted(data, KV_HEADS)
            name = f"blk.{layer}.{names[rest]}"
        else:
            name = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}[name]
        writer.add_tensor(f"{name}.weight", data.astype(np.float16) if data.ndim == 2 else data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_blocks(path: Path) -> None:
    """Blocks of every format that is decoded, with gguf-py's numbers; and numbers with gguf-py's blocks."""
    generator = np.random.default_rng(5)
    tensors = {}
    scales = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2],
              "Q6_K": [208]}
    for name, places in scales.items():
        kind = gguf.GGMLQuantizationType[name]
        blocks = generator.integers(0, 256, (3, gguf.GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
        for place in places:
            blocks[:, place:place + 2] = generator.normal(0, 0.1, (3, 1)).astype(np.float16).view(np.uint8)
        tensors[f"{name}.blocks"] = torch.from_numpy(blocks)
        tensors[f"{name}.numbers"] = torch.from_numpy(gguf.quants.dequantize(blocks, kind).astype(np.float32))
    numbers = generator.normal(0, 1, (4, 32)).astype(np.float32)
    numbers[3] = 0
    tensors["numbers"] = torch.from_numpy(numbers)
    for name in ("Q4_0", "Q8_0"):
        blocks = gguf.quants.quantize(numbers, gguf.GGMLQuantizationType[name])
        tensors[f"{name}.made"] = torch.from_numpy(blocks)
    save_file(tensors, path)


def logits_of(model) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([TOKENS])).logits[0, -1].float().contiguous()


def randomized(model, scale: float, seed: int) -> None:
    """Random weights where training would have made some."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if "lora_magnitude" in name or "ia3_" in name:
                weight.mul_(1 + noise * scale)
            elif any(part in name for part in ("lora_", "hada_", "lokr_", "vera_lambda")):
                weight.copy_(noise * 0.2)


def deltas_of(model, before: dict) -> dict:
    """The change of every adapted module, by module name: merged weights minus base weights, as PEFT makes them."""
    if model.peft_config["default"].to_dict().get("alora_invocation_tokens"):  # PEFT does not merge these
        layers = {name: layer for name, layer in model.base_model.model.named_modules() if hasattr(layer, "lora_A")}
        return {name: layer.get_delta_weight("default").detach() for name, layer in layers.items()}
    merged = {name.removesuffix(".weight"): weight for name, weight in model.merge_and_unload().named_parameters()}
    deltas = {name: weight.detach() - before[name] for name, weight in merged.items() if weight.dim() == 2}
    return {name: delta for name, delta in deltas.items() if delta.abs().max() > 0}


def fixture(out: Path, name: str, config, scale: float = 0.3) -> None:
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    base = base_model()
    before = {key.removesuffix(".weight"): value.detach().clone() for key, value in base.named_parameters()}
    model = peft.get_peft_model(base, config).eval()
    seed = sum(name.encode())
    randomized(model, scale, seed)
    # Without the frozen copies of the embeddings, which are larger than all else.
    model.save_pretrained(folder, save_embedding_layers=False)
    tidy(folder)
    reference_of(model, before, folder)
    print(f"{name}: {sum(file.stat().st_size for file in folder.iterdir())} bytes")


def tidy(folder: Path) -> None:
    """Leaves the two files of an adapter, without anything of this machine."""
    for file in folder.iterdir():
        if file.name not in HF_KEYS:
            file.unlink()
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = "tiny"
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")


def reference_of(model, before: dict, folder: Path) -> None:
    """Saves PyTorch's answers."""
    reference = {"logits": logits_of(model)}
    generator = torch.Generator().manual_seed(7)
    probes = {}
    for module, delta in deltas_of(model, before).items():
        inputs = delta.shape[1]
        if inputs not in probes:
            probes[inputs] = torch.randn((inputs, COLUMNS), generator=generator)
        reference[f"delta.{module}"] = (delta @ probes[inputs]).contiguous()
    reference |= {f"probe.{inputs}": probe for inputs, probe in probes.items()}
    save_file(reference, folder / "reference.safetensors")


def soft_fixture(out: Path, name: str, config) -> None:
    """A soft prompt: embeddings as large as the model's own, and PyTorch's answer with them in front."""
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    torch.manual_seed(sum(name.encode()))
    model = peft.get_peft_model(base_model(), config).eval()
    with torch.no_grad():
        for weight in model.prompt_encoder.parameters():
            weight.copy_(torch.randn_like(weight) * 0.15)
    model.save_pretrained(folder, save_embedding_layers=False)
    tidy(folder)
    # The tokens may be given as they are: PEFT puts the prompt in front.
    save_file({"logits": logits_of(model)}, folder / "reference.safetensors")
    print(f"{name}: {sum(file.stat().st_size for file in folder.iterdir())} bytes")


def small_models() -> dict:
    """A model of one layer for each architecture of the name tables that Transformers can make so small."""
    import transformers as hf

    common = dict(vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=4,
                  num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0)
    headed = dict(common, head_dim=4)
    return {
        "mistral": hf.MistralForCausalLM(hf.MistralConfig(**headed)),
        "qwen2": hf.Qwen2ForCausalLM(hf.Qwen2Config(**common)),
        "qwen3": hf.Qwen3ForCausalLM(hf.Qwen3Config(**headed)),
        "gemma": hf.GemmaForCausalLM(hf.GemmaConfig(**headed)),
        "gemma2": hf.Gemma2ForCausalLM(hf.Gemma2Config(**headed)),
        "gemma3": hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**headed)),
        "phi3": hf.Phi3ForCausalLM(hf.Phi3Config(**common)),
        "granite": hf.GraniteForCausalLM(hf.GraniteConfig(**common)),
        "smollm3": hf.SmolLM3ForCausalLM(hf.SmolLM3Config(**common)),
        "olmo2": hf.Olmo2ForCausalLM(hf.Olmo2Config(**common)),
        "starcoder2": hf.Starcoder2ForCausalLM(hf.Starcoder2Config(**common)),
        "stablelm": hf.StableLmForCausalLM(hf.StableLmConfig(**common)),
        "arcee": hf.ArceeForCausalLM(hf.ArceeConfig(**headed)),
        "cohere": hf.CohereForCausalLM(hf.CohereConfig(**common)),
        "cohere2": hf.Cohere2ForCausalLM(hf.Cohere2Config(**headed)),
        "ernie4_5": hf.Ernie4_5ForCausalLM(hf.Ernie4_5Config(**headed)),
        "exaone4": hf.Exaone4ForCausalLM(hf.Exaone4Config(**common)),
        "glm4": hf.Glm4ForCausalLM(hf.Glm4Config(**headed)),
        "olmo": hf.OlmoForCausalLM(hf.OlmoConfig(**common)),
        "phi": hf.PhiForCausalLM(hf.PhiConfig(**common)),
        "seed_oss": hf.SeedOssForCausalLM(hf.SeedOssConfig(**headed)),
    }


def converter_fixture(out: Path, name: str, model, converter: Path) -> None:
    """A LoRA on every linear, and llama.cpp's own conversion of it (F16) beside it."""
    folder = out / f"arch_{name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as base:
        settings = model.config.to_dict() | {"architectures": [type(model).__name__]}
        (Path(base) / "config.json").write_text(json.dumps(settings, default=str))
        linears = "all-linear" if name != "starcoder2" else ["q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj"]
        model = peft.get_peft_model(model, peft.LoraConfig(r=2, lora_alpha=5, target_modules=linears))
        randomized(model, 0.0, 5)
        model.save_pretrained(folder, save_embedding_layers=False)
        tidy(folder)
        command = [sys.executable, converter, folder, "--base", base, "--outtype", "f16", "--outfile",
                   folder / "llama_cpp.gguf"]
        subprocess.run(command, check=True, capture_output=True)
    print(f"arch_{name}: {sum(file.stat().st_size for file in folder.iterdir())} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "tests/corpus/peft")
    parser.add_argument("--llama-cpp", type=Path, help="source tree whose converter makes llama_cpp.gguf files")
    arguments = parser.parse_args()
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    model = base_model()
    write_base(model, out / "base.gguf")
    save_file({"logits": logits_of(model)}, out / "base.logits.safetensors")
    write_blocks(out / "blocks.safetensors")
    lora = lambda **more: peft.LoraConfig(**{"r": 2, "lora_alpha": 6, "target_modules": LINEARS, **more})
    fixture(out, "lora", lora())
    fixture(out, "rslora", lora(r=3, use_rslora=True))
    fixture(out, "alora", lora(
        target_modules=ATTENTION, alora_invocation_tokens=[111, 44], task_type="CAUSAL_LM"))  # without it never active
    fixture(out, "patterns", lora(
        rank_pattern={"k_proj": 3, r".*\.1\.mlp\.down_proj": 4},
        alpha_pattern={"layers.0.self_attn.v_proj": 9, "up_proj": 3.5, "^model.layers.1.self_attn.o_proj": 2},
    ))
    fixture(out, "rslora_patterns", lora(use_rslora=True, rank_pattern={"q_proj": 4}, alpha_pattern={"k_proj": 3}))
    fixture(out, "embedding", lora(target_modules=["q_proj", "embed_tokens", "lm_head"]))
    fixture(out, "dora", lora(use_dora=True), scale=0.05)
    fixture(out, "dora_near", lora(use_dora=True), scale=0.0)
    fixture(out, "ia3", peft.IA3Config(
        target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]))
    fixture(out, "loha", peft.LoHaConfig(r=2, alpha=3, target_modules=["q_proj", "k_proj", "down_proj"]))
    fixture(out, "lokr", peft.LoKrConfig(r=2, alpha=3, target_modules=["q_proj", "k_proj", "up_proj"]))
    fixture(out, "lokr_both", peft.LoKrConfig(
        r=2, alpha=4, decompose_both=True, decompose_factor=8, target_modules=["q_proj", "k_proj", "down_proj"]))
    fixture(out, "vera", peft.VeraConfig(r=4, target_modules=["q_proj", "o_proj"], save_projection=True))
    prompt = dict(task_type="CAUSAL_LM", num_virtual_tokens=4)
    soft_fixture(out, "prompt_tuning", peft.PromptTuningConfig(**prompt))
    soft_fixture(out, "p_tuning", peft.PromptEncoderConfig(encoder_hidden_size=16, **prompt))
    # Refused, each for its own reason: only their configurations and names of tensors matter.
    refused = {
        "refused_modules_to_save": lora(target_modules=["q_proj"], modules_to_save=["lm_head"]),
        "refused_bias": lora(target_modules=["q_proj"], bias="lora_only", lora_bias=False),
        "refused_lora_bias": lora(target_modules=["q_proj"], lora_bias=True),
        "refused_pissa": lora(target_modules=["q_proj"], init_lora_weights="pissa"),
        "refused_olora": lora(target_modules=["q_proj"], init_lora_weights="olora"),
        "refused_tokens": lora(target_modules=["q_proj"], trainable_token_indices=[3, 5]),
        "refused_adalora": peft.AdaLoraConfig(init_r=3, target_r=2, total_step=10, target_modules=["q_proj"]),
        "refused_prefix_tuning": peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
    }
    for name, config in refused.items():
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        model = peft.get_peft_model(base_model(), config)
        model.save_pretrained(folder)
        for file in folder.iterdir():
            if file.name != "adapter_config.json":
                file.unlink()
    if arguments.llama_cpp:
        torch.manual_seed(3)
        for name, model in small_models().items():
            converter_fixture(out, name, model.float().eval(), arguments.llama_cpp / "convert_lora_to_gguf.py")


if __name__ == "__main__":
    main()
