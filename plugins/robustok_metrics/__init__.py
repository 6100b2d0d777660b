"""Frozen feature networks, and metrics of tokenizers and generators."""
