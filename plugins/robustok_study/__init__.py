"""Studies: variants of a recipe with the same seeds, and what their paired differences say (docs/studies.md)."""
