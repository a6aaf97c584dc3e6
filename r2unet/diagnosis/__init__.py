"""Judges diagnoses: separation, decisions, calibration, intervals, baselines, and the challenge's scoring."""
