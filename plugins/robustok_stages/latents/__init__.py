"""Stages that make latents of images."""
