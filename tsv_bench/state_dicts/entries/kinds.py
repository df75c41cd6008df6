"""Kinds of entries, told by their names: counters, running statistics, vocabularies."""

import re
from collections.abc import Sequence

import torch

# Integers that count steps or number places. They say nothing that fine-tuning has learned.
COUNTS = re.compile(r"(.+\.)?(num_batches_tracked|position_ids|token_type_ids)")
# Buffers that a model makes by itself: some versions of a library save them, others do not.
REBUILT = re.compile(
    r"(.+\.)?(num_batches_tracked|position_ids|token_type_ids|inv_freq|original_inv_freq|"
    r"masked_bias|relative_position_index|attn_mask)"
)
MASK_OF_ATTENTION = re.compile(r"(.+\.)?attn(\.attention)?\.bias")  # of GPT-2: [1, 1, n, n]
RUNNING = re.compile(r"(.+\.)?running_(mean|var)")  # of BatchNorm
# Entries with one row for each token.
VOCABULARY = re.compile(
    r"(.+\.)?(embed_tokens|embed_in|embed_out|word_embeddings|token_embedding|tok_embeddings|wte|"
    r"shared|lm_head|output_projection|predictions|predictions\.decoder)\.(weight|bias)"
    r"|(.+\.)?token_embedding"
)
TIED_BIASES = (".decoder.bias", ".bias")  # of BERT's head: it is stored under both names


def is_count(name: str, dtype: torch.dtype, shape: Sequence[int]) -> bool:
    """Return whether an entry counts steps or numbers places: its values need not agree."""
    whole = not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)
    lone = not shape and dtype in (torch.int64, torch.int32)
    return whole and (lone or COUNTS.fullmatch(name) is not None)


def is_rebuilt(name: str, shape: Sequence[int]) -> bool:
    """Return whether an entry is a buffer that the model makes by itself, saved or not."""
    mask = MASK_OF_ATTENTION.fullmatch(name) and len(shape) == 4 and shape[2] == shape[3]
    return bool(mask) or REBUILT.fullmatch(name) is not None


def is_running(name: str) -> bool:
    """Return whether an entry is a running statistic of BatchNorm, a mean or a variance."""
    return RUNNING.fullmatch(name) is not None


def is_vocabulary(name: str) -> bool:
    """Return whether an entry has one row for each token."""
    return VOCABULARY.fullmatch(name) is not None
