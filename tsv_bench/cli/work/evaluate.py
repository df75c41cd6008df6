"""Evaluate a model that is in memory, on the images, heads and backbone of tsv-bench.

import tsv_bench
scores = tsv_bench.evaluate(model.state_dict(), suite="mini8", backbone="mini")
print({task: score.accuracy for task, score in scores.items()})
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from tsv_bench import bars
from tsv_bench.cli.config.overrides import checked, composed
from tsv_bench.cli.config.search_path import options
from tsv_bench.cli.work.in_memory import Checkpoint
from tsv_bench.methods.knobs import check_choice, is_number
from tsv_bench.process.extras import check_installed
from tsv_bench.scores import Score, score
from tsv_bench.state_dicts.adapters.adapted import open_checkpoint
from tsv_bench.state_dicts.entries.given import given_state_dict
from tsv_bench.state_dicts.entries.quantized import check_unscaled
from tsv_bench.task_vectors.lazy import LazyMapping, LazyVector, as_lazy
from tsv_bench.task_vectors.task_vector import TaskVector
from tsv_bench.wording.spelling import nearest

if TYPE_CHECKING:
    from tsv_bench.models import Backbone

SPLITS = ("train", "val", "test")
PREFIXES = ("", "visual.", "model.visual.")  # of the image tower in state dicts


def evaluate(
    model: Checkpoint | Mapping[str, Checkpoint],
    suite: str | Sequence[str] = "mini8",
    backbone: str = "mini",
    *,
    alpha: float | int | None = None,
    split: str = "test",
    device: str = "cpu",
    settings: Sequence[str] = (),
    progress: bool = True,
) -> dict[str, Score]:
    """Return the score of a model on each task of a suite: its accuracy in [0, 1] and counts.

    ``model`` is a state dict of the image tower, alone or in a whole CLIP, a module, or the path of
    one; or task -> such a model, as `merge` returns of methods that serve each task its own. With
    ``alpha`` it is a vector, layer -> delta, and pretrained + alpha * model is evaluated; that of a
    `TaskVector`, or of what a method serves, is 1. ``suite`` is a name of conf/suite, or a list of
    tasks. ``settings`` are further ones of tsv-bench as they are typed, such as
    "paths.data=FOLDER". Images are decoded once and kept in paths.data, by default ./data. Tasks
    are spread over the devices if ``device`` names several, as "cuda:0,cuda:1".

    Raises ValueError for names, settings or parameters that do not fit, and OSError for files.
    """
    check_installed("bench", "tsv_bench.evaluate")
    from tsv_bench.cli.config import objects
    from tsv_bench.cli.config.needs import check_fetched
    from tsv_bench.cli.config.tasks import make_tasks

    check_choice("split", split, SPLITS, "a split of a task")
    if alpha is not None and not is_number(alpha):
        raise ValueError(f"alpha={alpha!r} is not a finite number.")
    config = composed("bench", checked("bench", _lines(suite, backbone, settings)))
    tasks = make_tasks(config.suite.tasks)
    devices = [name.strip() for name in device.split(",")]
    evaluation = objects.make_evaluation(config, devices)
    check_fetched(config)
    network = objects.make_backbone(config)
    served = _served(model, tasks, network, alpha)
    with bars.showing(progress):
        objects.check_data(config, network, tasks, dict.fromkeys(tasks, (split,)))
        load = objects.make_loader(config, network)
        images = {name: load(task, split) for name, task in tasks.items()}
        heads = objects.make_heads(config, network, tasks, objects.make_source(config, devices[0]))
        evaluator = evaluation.evaluator(network, heads)
        with bars.bar(total=len(tasks), desc=f"evaluating: {split}", unit="task") as bar:
            found = evaluator.correct(served, 1.0 if alpha is None else alpha, images, bar.update)
    return {task: score(correct) for task, correct in found.items()}


def _lines(suite: str | Sequence[str], backbone: str, settings: Sequence[str]) -> list[str]:
    """Return the settings as they are typed. Raises ValueError for a name that there is not."""
    tasks = ("suite", [suite]) if isinstance(suite, str) else ("task", suite)
    for group, chosen in (("backbone", [backbone]), tasks):
        known = options(group)
        if odd := [name for name in chosen if name not in known]:
            raise ValueError(
                f"unknown {group} {odd[0]!r}{nearest(str(odd[0]), known)} "
                f"There are: {', '.join(known)}."
            )
    if odd := [line for line in settings if "=" not in line or line.startswith("-")]:
        raise ValueError(f"settings has {odd[0]!r}: each is KEY=VALUE, as 'paths.data=FOLDER'.")
    of_suite = f"suite={suite}" if isinstance(suite, str) else f"suite.tasks=[{','.join(suite)}]"
    return [f"backbone={backbone}", of_suite, *settings]


def _served(
    model: Checkpoint | Mapping[str, Checkpoint],
    tasks: Iterable[str],
    network: "Backbone",
    alpha: float | int | None,
) -> dict[str, Mapping]:
    """Return task -> the vector that is added to the pretrained weights."""
    several = isinstance(model, Mapping) and not isinstance(model, LazyMapping)
    values = list(model.values()) if several else []
    if not values or any(isinstance(value, Tensor) for value in values):
        return dict.fromkeys(tasks, _vector("model", model, network, alpha))
    if odd := set(model) ^ set(tasks):
        raise ValueError(
            f"the models are of {', '.join(map(str, model))}, and the tasks are "
            f"{', '.join(tasks)}: {min(map(str, odd))!r} is only in one."
        )
    return {task: _vector(task, model[task], network, alpha) for task in tasks}


def _vector(
    name: str, model: Checkpoint, network: "Backbone", alpha: float | int | None
) -> LazyMapping:
    from tsv_bench.checkpoints.image_tower import image_tower

    if isinstance(model, TaskVector | LazyVector) or alpha is not None:
        vector = _opened(name, model)
        if odd := [layer for layer in vector if layer not in network.pretrained]:
            raise ValueError(
                f"{name}: its layer {odd[0]!r} is none of the backbone {network.name!r}, which has "
                f"{next(iter(network.pretrained))!r} and so on."
            )
        return vector
    try:
        state = _opened(name, model)
        if isinstance(model, str | Path):
            state = image_tower(state, network.pretrained)
        else:
            state = as_lazy(_tower(state, network))
        return TaskVector(network.pretrained, state)
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(f"{name}: ") else f"{name}: {text}") from error


def _opened(name: str, given: Checkpoint | LazyMapping) -> LazyMapping:
    """Return a checkpoint's tensors. Raises ValueError or OSError that names it."""
    try:
        if isinstance(given, nn.Module):
            given = given.state_dict()
        if isinstance(given, str | Path):
            state = open_checkpoint(given)
        elif isinstance(given, LazyMapping):
            state = given
        elif isinstance(given, Mapping) and given:
            state = given_state_dict(given)
        else:
            raise ValueError(f"{type(given).__name__} is no state dict, module or path.")
        check_unscaled(state)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    except OSError as error:
        raise type(error)(f"{name}: {error}") from error
    return state


def _tower(state: LazyMapping, network: "Backbone") -> dict[str, Tensor]:
    """Return the image tower of a state dict under the backbone's names."""
    for prefix in PREFIXES:
        if all(prefix + name in state for name in network.pretrained):
            return {name: state[prefix + name] for name in network.pretrained}
    first = next(iter(network.pretrained))
    raise ValueError(
        f"it lacks parameters of the backbone {network.name!r}: its first are "
        f"{', '.join(list(state)[:3])}. Expected are {first!r} and so on, or all with 'visual.' "
        f"before. Is it of another backbone?"
    )
