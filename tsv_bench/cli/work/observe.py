"""The work of tsv-observe."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from tsv_bench.cli.config import objects
from tsv_bench.cli.config.needs import check_fetched
from tsv_bench.cli.config.tasks import make_tasks
from tsv_bench.cli.work.machine import one_device, set_up_machine
from tsv_bench.files import sha256
from tsv_bench.models import zero_shot_heads
from tsv_bench.observation.gather import drawn
from tsv_bench.observation.observe_files import observe_images, observe_texts, output_paths
from tsv_bench.observation.statistics_file import identity
from tsv_bench.state_dicts.adapters.inputs import check_no_adapter
from tsv_bench.state_dicts.integrity import checked_hashes
from tsv_bench.state_dicts.state_dict import StateDict, open_state_dict

log = logging.getLogger(__name__)


def observe(config: DictConfig, kinds: Sequence[str]) -> None:
    """Write a file for each kind; log where they are."""
    started = time.monotonic()
    device = one_device(set_up_machine(config))
    paths = output_paths(Path(config.output), kinds, config.overwrite)
    state = open_state_dict(config.finetuned)
    check_no_adapter(state)
    about = {"checkpoint": identity(checked_hashes(state)), "seed": config.seed}
    if config.texts is None:
        of_images(config, state, paths, about, device)
    else:
        of_texts(config, state, paths, about, device)
    total = sum(path.stat().st_size for path in paths.values())
    log.info(
        f"statistics of {config.finetuned} -> {', '.join(map(str, paths.values()))} "
        f"({total / 1e6:.1f} MB) in {time.monotonic() - started:.1f} s"
    )


def of_images(
    config: DictConfig, state: StateDict, paths: dict[str, Path], about: dict, device: str
) -> None:
    """Write statistics of the task's images."""
    tasks = make_tasks(config.task)
    [(name, task)] = tasks.items()
    check_fetched(config)
    backbone = objects.make_backbone(config)
    objects.check_data(config, backbone, tasks, {name: (config.split,)})
    split = objects.make_loader(config, backbone)(task, config.split)
    rows = drawn(
        split, config.images, config.seed, f"the {config.split} images of {name}", "images"
    )
    about |= {
        "backbone": backbone.fingerprint,
        "data": task.fingerprint,
        "split": config.split,
        "images": config.images,
    }
    heads = zero_shot_heads(backbone, tasks, Path(config.paths.heads)) if "fisher" in paths else {}
    observe_images(
        backbone, state, paths, split.images[rows], heads.get(name), about, config.classes, device
    )


def of_texts(
    config: DictConfig, state: StateDict, paths: dict[str, Path], about: dict, device: str
) -> None:
    """Write statistics of a text file."""
    texts = Path(config.texts)
    about |= {"data": sha256(texts), "split": "texts", "tokens": config.tokens}
    observe_texts(
        Path(config.finetuned), state, paths, texts, config.sequences, config.tokens, about, device
    )
