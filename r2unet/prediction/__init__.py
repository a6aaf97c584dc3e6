"""Prediction: from a photograph to a mask, and to a figure of what the network does with it."""
