"""plan=true of tsv-bench: what a command would do, and about how long, before it does anything."""
