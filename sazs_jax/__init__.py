"""Shape-aware zero-shot semantic segmentation (SAZS) in JAX and Flax."""
