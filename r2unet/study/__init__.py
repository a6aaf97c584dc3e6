"""Studies: train variants of the network with several seeds and compare their scores."""
