"""The networks: their blocks, the U-shape built from them, the losses, and tools to inspect a network."""
