"""The values that flow between components."""
