"""Weights on disk: read from every common format, checked, written as safetensors.

`open_state_dict` opens a checkpoint, `inputs` all those of a command, whose `entries` are paired
and checked, `open_vectors` their task vectors; `writer` writes outputs.
`low_rank` and `masked` define our compressed files.
"""

from tsv_bench.state_dicts.state_dict import StateDict, open_state_dict

__all__ = ["StateDict", "open_state_dict"]
