"""Fold classifier-free guidance into one forward pass."""
