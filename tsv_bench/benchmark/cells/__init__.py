"""Cells of the benchmark, a method on a suite and a backbone each, and the making of their Runs."""
