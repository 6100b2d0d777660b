"""Perturbations: change latents before the decoder reads them in training."""
