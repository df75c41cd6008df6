"""A search by merge3 over the checkpoints of `made_up.merges`, asked by a command."""

import os
import shlex
import sys
from functools import partial
from pathlib import Path

from made_up import scorer
from made_up.merges import made

from tsv_bench.merging.scoring import ScoringCommand

SCORER = shlex.join([sys.executable, "-S", "-I", scorer.__file__])
FEW = {"population": 4, "generations": 2, "anchors": 8, "dimensions": 1, "highest": 1.5}
FEW |= {"respondent_alphas": [0.5], "check": False}


def searched(folder, output="out.safetensors", end="{model} {items}", command=None, **knobs):
    """The weights that are written; the command runs in ``folder``."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        scoring = ScoringCommand(command=command or f"{SCORER} {end}", seconds=60)
        return made(Path(), "merge3", output, knobs=FEW | knobs, scoring=scoring)[0]
    finally:
        os.chdir(before)


def asked(folder):
    """(model, items) of each run of the command."""
    lines = (Path(folder) / "asked.txt").read_text().splitlines()
    return [(name, int(count)) for name, count in map(str.split, lines)]


search = partial(searched, Path())  # what a process of its own does, in its folder
