"""Building blocks that plugins share: straight-through gradients, convolution and transformer blocks.

A library, no plugin: it registers nothing.
"""
