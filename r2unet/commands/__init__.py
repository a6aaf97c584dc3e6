"""The command line: one module per command, each with its options; `main` has the table of commands."""
