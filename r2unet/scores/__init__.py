"""Scores: metrics of a mask, trivial baselines, evaluation, and scoring as the ISIC challenge does it."""
