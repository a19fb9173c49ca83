"""Training: tasks (what is trained), optimizer, state, the pmapped step, checkpoints, TensorBoard and the loop."""
