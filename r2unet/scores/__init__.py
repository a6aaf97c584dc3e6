"""Metrics of a mask, trivial baselines, the evaluation of a network, and the ISIC challenge's scoring."""
