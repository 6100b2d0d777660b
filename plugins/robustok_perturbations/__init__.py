"""Perturbations of latents: what the decoder meets in training besides clean latents."""
