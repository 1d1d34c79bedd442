"""Causal language models: loading, rows of tokens, losses, decoding, LoRA, and the embedded ones."""
