"""Fine-tuning settings for the tasks of `made_up.tasks`: a second of training."""

from made_up.tasks import backbone, load, task

from tsv_bench.checkpoints.on_demand import OnDemand
from tsv_bench.models.finetuning import Finetuning

SETTINGS = Finetuning(batch_size=16, rate=0.01, warmup=0.1, weight_decay=0.1, clip=1.0, shift=1)


def source(folder, **changes):
    settings = {"finetuning": SETTINGS, "seed": 0, "device": "cpu"}
    return OnDemand(folder=folder, **{**settings, **changes})


def make(folder):
    """Make the checkpoint, and save after every step what is to be resumed."""
    source(folder, save_every=0).checkpoint(backbone(), task(), load)
