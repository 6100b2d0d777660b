"""Generators of latents: autoregressive, masked and flow-matching transformers."""
