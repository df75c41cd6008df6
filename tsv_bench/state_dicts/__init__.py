"""Weights on disk: every format that is read, the one that is written, and their integrity."""

from tsv_bench.state_dicts.state_dict import StateDict, open_state_dict

__all__ = ["StateDict", "open_state_dict"]
