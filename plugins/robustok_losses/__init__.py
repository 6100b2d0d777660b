"""The terms of a tokenizer's training loss: reconstruction, perceptual, adversarial, semantic."""
