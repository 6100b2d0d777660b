"""A library that stages, metrics and commands share; not a plugin."""
