"""Training: optimizer, state, the pmapped step, checkpoints, TensorBoard and the loop."""
