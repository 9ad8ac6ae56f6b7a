"""A whole training run: phases of steps, checkpoints, failures, days and dollars, over many seeds."""
