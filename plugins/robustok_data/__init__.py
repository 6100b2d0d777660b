"""Data sets: an embedded one for trials, and readers for arrays, folders, shards and the Hugging Face hub."""
