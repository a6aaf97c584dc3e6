"""Prediction: from an image to its mask, and to a figure of the network's feature maps."""
