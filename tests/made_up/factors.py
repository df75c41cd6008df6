"""Small checkpoint files whose singular triplets are kept, and what a process merges of them."""

import torch
from safetensors.torch import save_file
from stand_ins.processes import LONGEST

from tsv_bench import methods
from tsv_bench.state_dicts.factor_cache import FactorCache
from tsv_bench.state_dicts.integrity import checked_hashes
from tsv_bench.state_dicts.open_vectors import cache_key, open_task_vector
from tsv_bench.state_dicts.state_dict import open_state_dict

SHAPES = {"w": (40, 30), "in_proj_weight": (60, 20), "wide": (20, 50), "frozen": (9, 8), "b": (7,)}
MATRICES = 3  # that tasks change
FRACTIONS = (0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5)  # a sweep of TSV-C


def write(folder, num_tasks=4):
    """A pretrained checkpoint and fine-tuned ones."""
    generator = torch.Generator().manual_seed(0)
    folder.mkdir(exist_ok=True)
    base = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    save_file(base, folder / "base.safetensors")
    for task in range(num_tasks):
        tuned = {
            name: x if name == "frozen" else x + 0.1 * torch.randn(x.shape, generator=generator)
            for name, x in base.items()
        }
        save_file(tuned, folder / f"{task}.safetensors")


def vectors(folder, tasks, factors=None):
    """Their task vectors, with a factor cache or without."""
    base, *tuned = (open_state_dict(folder / f"{name}.safetensors") for name in ("base", *tasks))
    states = dict(zip(map(str, tasks), tuned, strict=True))
    hashes = {task: [*checked_hashes(base).values(), *checked_hashes(states[task]).values()]
              for task in states}  # fmt: skip
    return {
        task: open_task_vector(base, state, factors=factors, pair=cache_key(*hashes[task]))
        for task, state in states.items()
    }


def sweep(folder, max_bytes, output, barrier):
    """Merge them at every fraction, as soon as all who are to begin at once are here."""
    torch.set_num_threads(1)
    factors = FactorCache(folder / "factors", max_bytes)
    barrier.wait(LONGEST)
    served = {}
    for fraction in FRACTIONS:  # every one replaces the entries of the one before
        merged = methods.tsv_merge(vectors(folder, range(4), factors), rank_fraction=fraction)
        served |= {f"{fraction} {name}": delta for name, delta in merged["0"].items()}
    save_file(served, output)
