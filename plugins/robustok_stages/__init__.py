"""The stages of a run: train a tokenizer, make latents with it, train a generator on them, sample, evaluate."""
