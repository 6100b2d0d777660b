"""Building blocks that plugins share: straight-through gradients, convolution and transformer blocks.

This is a library, not a plugin: it registers nothing.
"""
