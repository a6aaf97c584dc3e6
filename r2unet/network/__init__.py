"""The networks: their blocks, the U that they form, their losses, and tools that inspect a network."""
