"""Generators of latents: autoregressive and masked transformers."""
