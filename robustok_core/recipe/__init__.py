"""From TOML to a checked, resolved recipe; the registry of components."""
