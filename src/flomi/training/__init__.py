"""Training: the one loop, ensembles, and critics and bounds of the user's own."""
