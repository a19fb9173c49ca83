"""Flax NNX modules: encoders, decoder, text tower and the composed network."""
