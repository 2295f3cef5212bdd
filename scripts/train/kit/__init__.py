"""The training kit: adapters for a quantized GGUF base model, trained on a CPU or an accelerator."""
