"""Training: settings, the training loop, checkpoints and run folders, cost estimates, and export."""
