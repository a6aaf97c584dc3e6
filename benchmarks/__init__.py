"""Side-by-side measurements against other frameworks; `benchmarks/README.md` says how they are made."""
