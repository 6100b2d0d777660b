"""Post-trainers, which adapt a tokenizer to a generator's latents."""
