"""From a method's configuration to the method. Apart from `experiment`, which loads networks."""

from hydra.utils import instantiate
from omegaconf import DictConfig

from tsv_bench.cli.launch import plain
from tsv_bench.method import Choice, Method

NOT_KNOBS = {"name", "label", "paper", "alphas", "serve", "choose"}


def make_method(config: DictConfig) -> Method:
    """The method, its knobs and candidates for alpha checked."""
    node = config.method
    settings = plain(node)
    knobs = {name: value for name, value in settings.items() if name not in NOT_KNOBS}
    method = Method(
        name=node.name,
        label=node.label,
        alphas=settings["alphas"],
        knobs=knobs,
        serve=instantiate(node.serve),
        choice=Choice(**instantiate(node.choose, _convert_="all")) if "choose" in node else None,
    )
    method.check()
    if odd := set(knobs) ^ set(method.serve.keywords):
        raise ValueError(
            f"the knob {min(odd)!r} of {node.name} does not reach its function, or comes from "
            f"nowhere: method.<knob> and method.serve.<knob> must name the same knobs."
        )
    return method
