"""Metrics of masks, trivial baselines, evaluation, and the ISIC challenge's scoring."""
