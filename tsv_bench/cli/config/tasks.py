"""The tasks that a configuration describes, and on what else they are tested.

A task's yaml may have switches, keys that choose among settings which belong together:

    prompts: correct   # the user sets this
    switches:          # each of its values sets these
      prompts:
        correct: {}
        paper: {variant: prompts of the paper, class_names: [...]}
"""

import hashlib
import pickle
from collections.abc import Mapping
from functools import cache

from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from tsv_bench.benchmark.run_content import LARGEST
from tsv_bench.cli.config.overrides import as_typed
from tsv_bench.cli.config.search_path import CONF
from tsv_bench.cli.own.task import completed
from tsv_bench.data import Task
from tsv_bench.data.corruptions.corrupted import Corruptions
from tsv_bench.data.corruptions.definitions import CORRUPTIONS
from tsv_bench.methods.knobs import check_whole

MAX_NAMED = 3  # tasks of which the name of an unnamed suite is made; more are counted and hashed


def make_tasks(nodes: DictConfig) -> dict[str, Task]:
    """Return the tasks by name, in order.

    Raises ValueError if there is none, or if a task has another name than its key.
    """
    if isinstance(nodes, list | ListConfig):
        raise ValueError(
            f"the tasks are {as_typed(nodes)}, which are names alone. A suite's yaml chooses them "
            f"in its defaults, as in: - /task@tasks: [digits, signs]"
        )
    if not nodes:
        raise ValueError(
            "the suite has no tasks: name at least one, as in suite.tasks=[digits,signs]."
        )
    plain = {
        name: OmegaConf.to_container(completed(name, node), resolve=True)
        for name, node in nodes.items()
    }
    for name, node in plain.items():
        check_drawn(name, node)
    # A command asks for its tasks a few times, and YAML takes four times as long as pickle.
    tasks = {name: _make_task(pickle.dumps(node)) for name, node in plain.items()}
    for name, task in tasks.items():
        if name != task.name:
            raise ValueError(f"the task under the key {name!r} calls itself {task.name!r}.")
    return tasks


def check_drawn(name: str, node: Mapping) -> None:
    """Check how many images of a task are drawn. Raises ValueError if a number is none."""
    source = node.get("source")
    if not isinstance(source, Mapping) or "num_images" not in source:
        return
    numbers = source["num_images"]
    if not isinstance(numbers, Mapping):
        raise ValueError(
            f"the task {name!r} has source.num_images={as_typed(numbers)}, and takes a number of "
            f"each split, as in source.num_images.train=2000."
        )
    for split, number in numbers.items():
        check_whole(f"{name}.source.num_images.{split}", number, "how many are drawn", 1)


def check_suite(config: DictConfig) -> None:
    """Raise ValueError unless the suite's yaml has a name and tasks."""
    for key, example in (("name", "name: mine"), ("tasks", "- /task@tasks: [digits, signs]")):
        if not config.get("suite") or key not in config.suite:
            place = " in its defaults" if key == "tasks" else ""
            raise ValueError(f"the suite's yaml has no {key}{place}. As in: {example}")


def check_seed(config: DictConfig) -> None:
    """Raise ValueError unless the seed of fine-tuning is a whole number that a Run may have."""
    seed = config.seed
    whole = isinstance(seed, int) and not isinstance(seed, bool)
    if not whole or not 0 <= seed <= LARGEST:
        raise ValueError(f"seed={seed!r} is not a whole number from 0 to {LARGEST}.")


@cache
def _make_task(pickled: bytes) -> Task:
    return instantiate(switched(OmegaConf.create(pickle.loads(pickled))))


def without_unseen(
    tasks: Mapping[str, Task], unseen: object
) -> tuple[dict[str, Task], dict[str, Task]]:
    """Return the tasks of a suite that are merged, and those of ``unseen``, which are not.

    Raises ValueError if ``unseen`` is no list of tasks of the suite, or leaves nothing to merge.
    """
    if not isinstance(unseen, list | ListConfig):
        raise ValueError(f"unseen={unseen!r} is no list of tasks, as in unseen=[symbols,shapes].")
    if odd := [name for name in unseen if name not in tasks]:
        raise ValueError(
            f"unseen names {odd[0]!r}, which is no task of the suite; there are "
            f"{', '.join(tasks)}. suite= or suite.tasks=[...] has all tasks, the unseen ones, too."
        )
    merged = {name: task for name, task in tasks.items() if name not in unseen}
    if not merged:
        raise ValueError(f"unseen names all tasks of the suite, {', '.join(tasks)}. Merge some.")
    return merged, {name: task for name, task in tasks.items() if name in unseen}


def make_corruptions(config: DictConfig) -> Corruptions | None:
    """Return the corruptions of test images, or None if there are none.

    Raises ValueError for an unknown corruption, one named twice, or a severity that is none.
    """
    names = config.evaluation.corruptions
    if not isinstance(names, ListConfig):
        raise ValueError(
            f"evaluation.corruptions={names!r} is no list, as in evaluation.corruptions=[fog]."
        )
    return Corruptions(list(names), config.evaluation.severity) if names else None


def suite_name(config: DictConfig) -> str:
    """Return the suite's name, or one made of its tasks if the command line changed them.

    Tables are of one suite: what else is tested is a part of the name.
    """
    tasks = list(config.suite.tasks)
    known = tasks == named_tasks(config.suite.name)
    parts = [config.suite.name if known else _joined(tasks, "tasks")]
    if unseen := [task for task in tasks if task in config.unseen]:
        parts += ["unseen", _joined(unseen, "tasks")]
    if names := list(config.evaluation.corruptions):
        every = names == list(CORRUPTIONS)
        parts += ["corrupted" if every else _joined(names, "corruptions")]
        parts += [str(config.evaluation.severity)]
    return "-".join(parts)


def _joined(names: list[str], what: str) -> str:
    """Return a few names as one, or how many they are with a hash."""
    if len(names) <= MAX_NAMED:
        return "+".join(names)
    digest = hashlib.sha256("+".join(names).encode()).hexdigest()[:6]
    return f"{len(names)}-{what}-{digest}"


def named_tasks(suite: str) -> list[str] | None:
    """Return the tasks that a suite's yaml in conf/ lists, or None if there is no such yaml."""
    path = CONF / "suite" / f"{suite}.yaml"
    if not path.exists():
        return None
    return next(
        list(entry["/task@tasks"])
        for entry in OmegaConf.load(path).defaults
        if "/task@tasks" in entry
    )


def switched(task: DictConfig) -> DictConfig:
    """Return a task's node with its switches applied and removed, as `Task` takes it.

    Raises ValueError if a switch does not have the value that is set.
    """
    plain = OmegaConf.to_container(task, resolve=True)
    chosen, variants = [], [plain.pop("variant", "")]
    for key, values in plain.pop("switches", {}).items():
        value = plain.pop(key)
        found = [v for v in values if v == value and type(v) is type(value)]  # 1 is not true
        if not found:
            raise ValueError(
                f"the task {plain['name']!r} has {key}={as_typed(value)}; it takes one of: "
                f"{', '.join(map(as_typed, values))}."
            )
        settings = dict(values[found[0]])
        variants.append(settings.pop("variant", ""))
        chosen.append(settings)
    plain["variant"] = ", ".join(filter(None, variants))
    return OmegaConf.merge(plain, *chosen)
