"""The stages of a run: train a tokenizer, evaluate it."""
