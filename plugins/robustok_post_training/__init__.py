"""Post-training: what adapts a tokenizer to the latents that a generator makes."""
