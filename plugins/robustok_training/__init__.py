"""The training loop, a library for stages: bit-exact checkpoints, data order, optimisers, progress."""
