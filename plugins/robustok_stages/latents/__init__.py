"""Stages that encode images to latents."""
