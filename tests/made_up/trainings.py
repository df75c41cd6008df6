"""What each of several processes does that fine-tune together, and one line of json of it."""

import hashlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from made_up.finetuning import SETTINGS, source
from made_up.tasks import backbone, load, task
from torch.distributed.launcher import LaunchConfig, elastic_launch

from tsv_bench.checkpoints import on_demand
from tsv_bench.cli import finetune
from tsv_bench.models import distributed, finetuning

CHANGES = {"parts": {"accumulate": 3}, "float16": {"precision": "float16"}}  # to the settings
NUM_STEPS = 24


def train(*names):
    """Make a checkpoint in the folder of each name, "again" in that of "killed".

    "killed" saves after every step what is to be resumed.
    """
    torch.set_num_threads(1)
    written, steps, hashes = [], [], []
    batch_rows, train_tower = finetuning.batch_rows, on_demand.finetune

    def audit(event, args):
        """Note files opened to be written, folders made, files renamed."""
        flags = args[2] if event == "open" and isinstance(args[2], int) else 0
        if flags & (os.O_WRONLY | os.O_RDWR) or event in ("os.mkdir", "os.rename"):
            written.append(str(args[0]))

    def watched(num_rows, batch_size, step, seed):
        steps.append(step)
        return batch_rows(num_rows, batch_size, step, seed)

    def hashed(*args, **settings):
        visual = train_tower(*args, **settings)
        state = torch.cat([tensor.flatten() for tensor in visual.state_dict().values()])
        hashes.append(hashlib.sha256(state.numpy().tobytes()).hexdigest())
        return visual

    sys.addaudithook(audit)
    group = distributed.join_group("cpu")
    inside = str(Path.cwd())
    finetuning.batch_rows, on_demand.finetune = watched, hashed
    for name in names:
        for noted in (written, steps, hashes):
            noted.clear()
        found = source(
            Path("killed" if name == "again" else name),
            finetuning=replace(SETTINGS, **CHANGES.get(name, {})),
            save_every=0 if name == "killed" else 600,
        ).checkpoint(backbone(), task(), load)
        own = [path for path in written if os.path.abspath(path).startswith(inside)]
        said = {
            "training": name, "rank": group.rank, "steps": steps, "hashes": hashes,
            "sha256": found.sha256, "wrote": own, "processes": group.size,
        }  # fmt: skip
        # In one piece, since torchrun's processes share their output.
        sys.stdout.write(f"{json.dumps(said)}\n")
        sys.stdout.flush()
    finetuning.batch_rows, on_demand.finetune = batch_rows, train_tower


def resume(*arguments):
    """Go on with what was killed, make it once more, then call the command as torchrun does."""
    train("killed", "again")
    sys.argv = ["tsv-finetune", *arguments]
    finetune.main()


def torchrun(*arguments):
    """Let torchrun's agent start and watch two processes, forked from this one with all imports.

    ``torchrun --standalone --nproc-per-node=2`` is this call with a new interpreter for each.
    """
    alone = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, run_id="tests", rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", start_method="fork",
    )  # fmt: skip
    elastic_launch(alone, resume)(*arguments)
