"""Prediction: from a photograph to its mask, and to a figure of the network's feature maps."""
