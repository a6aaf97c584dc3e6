"""Training: settings, the training loop, its files, its cost, and the export of its weights."""
