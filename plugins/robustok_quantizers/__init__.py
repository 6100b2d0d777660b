"""Quantizers: vectors to codewords."""
