"""The records of made-up analyses: what tsv-analyze writes of small random networks."""

from functools import cache

import torch

from tsv_bench.analysis.measures import Settings, measure
from tsv_bench.analysis.records import make_records

CLIP = ("attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
LLAMA = tuple(
    [f"self_attn.{x}_proj.weight" for x in "qkvo"]
    + [f"mlp.{x}_proj.weight" for x in ("gate", "up", "down")]
)


def clip(num_blocks=4, stack="visual.transformer.resblocks"):
    blocks = [f"{stack}.{i}.{kind}" for i in range(num_blocks) for kind in CLIP]
    return ["visual.positional_embedding", "visual.proj", *blocks]


def experts(num_blocks=2):
    """More kinds than colours."""
    return [f"model.layers.{i}.{kind}{j}.weight" for i in range(num_blocks) for j in range(5)
            for kind in LLAMA]  # fmt: skip


NETWORKS = {
    "clip": (clip(), 8),
    "large": (clip(24), 20),
    "towers": (clip(6) + clip(3, "transformer.resblocks"), 3),
    "llama": ([f"model.layers.{i}.{kind}" for i in range(8) for kind in LLAMA], 2),
    "experts": (experts(), 2),
    "one matrix": (["visual.proj"], 2),
    "one block": (["h.0.attn.c_attn.weight"], 2),
    "no blocks": ([f"branch_{chr(97 + i)}.weight" for i in range(20)], 3),
    "one task": (clip(), 1),
}


@cache
def records(network, *, unchanged=()):
    """Tasks share directions a little, the more the deeper; 12 x 10 matrices."""
    names, num_tasks = NETWORKS[network]
    generator = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    tasks = [f"Task {chr(65 + t)}" for t in range(num_tasks)]
    vectors = {task: {} for task in tasks}
    for depth, name in enumerate(names):
        common = randn(12, 2) @ randn(2, 10) * depth / len(names)
        for t, task in enumerate(tasks):
            delta = common + randn(12, 10) * torch.logspace(0, -1, 10, dtype=torch.float64)
            vectors[task][name] = torch.zeros_like(delta) if t in unchanged else delta
    measured = list(measure(vectors, Settings(rank_fraction=0.2 if num_tasks > 5 else None)))
    return make_records(measured, tasks)
