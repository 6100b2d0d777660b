"""The report of a run, or of several: one HTML file, and vector figures for papers."""
