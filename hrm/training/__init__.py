"""Training: the loop, its state, evaluation, metrics, ranks."""
