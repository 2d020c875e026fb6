"""Training: configuration, the loop, its state, the run folder, when checkpoints are written."""
