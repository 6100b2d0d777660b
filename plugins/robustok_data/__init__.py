"""Data sets: a small embedded one, and readers for arrays, folders, shards and the Hugging Face hub."""
