"""Frozen feature networks, and what is measured with and without them."""
