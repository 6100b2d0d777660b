"""What stages, metrics and commands share; a library, no plugin."""
