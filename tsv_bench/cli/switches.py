"""Switches of a task: keys of its yaml that choose among settings which belong together.

prompts: correct   # what a user sets
switches:          # what each value sets in turn
  prompts:
    correct: {}
    paper: {variant: prompts of the paper, class_names: [...]}
"""

from omegaconf import DictConfig, OmegaConf


def switched(task: DictConfig) -> DictConfig:
    """The task's node with its switches applied and taken out: what ``Task`` is made from.

    ValueError for a value that a switch does not have.
    """
    plain = OmegaConf.to_container(task, resolve=True)
    chosen, variants = [], [plain.pop("variant", "")]
    for key, values in plain.pop("switches", {}).items():
        value = plain.pop(key)
        found = [v for v in values if v == value and type(v) is type(value)]  # 1 is not true
        if not found:
            raise ValueError(
                f"the task {plain['name']!r} has {key}={shown(value)}; it takes one of: "
                f"{', '.join(map(shown, values))}."
            )
        settings = dict(values[found[0]])
        variants.append(settings.pop("variant", ""))
        chosen.append(settings)
    plain["variant"] = ", ".join(filter(None, variants))
    return OmegaConf.merge(plain, *chosen)


def shown(value: object) -> str:
    """As it is written on the command line."""
    return str(value).lower() if isinstance(value, bool) else str(value)
