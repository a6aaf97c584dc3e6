"""Comparison of speed and memory with other frameworks; `benchmarks/README.md` describes the method."""
