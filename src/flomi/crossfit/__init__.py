"""Cross-fitting: options, folds, selection, held-out evaluation, checkpoints, saving."""
