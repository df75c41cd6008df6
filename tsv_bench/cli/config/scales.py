"""The settings of tsv-merge that scale: a weight a task, alpha, and alphas of layers."""

import logging
from collections.abc import Collection
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from tsv_bench.cli.config.method_yaml import Described
from tsv_bench.merging.arguments import check_arguments, check_layer_alphas, check_weights

log = logging.getLogger(__name__)


def check_scales(config: DictConfig, method: Described, tasks: Collection[str]) -> None:
    """Check alpha, alphas of layers and weights of tasks.

    Raises ValueError for what is no number, for tasks without a weight, and for weights with a
    method that neither sums nor averages what tasks contribute.
    """
    alpha, by_depth = config.alpha, config.alpha_by_depth
    patterns = mapping(alpha)
    if patterns == {}:
        raise ValueError("alpha={} names no pattern: as in alpha='{*self_attn*: 0.5}'.")
    number = 1.0 if alpha is None or patterns else alpha
    check_arguments(number, config.write, config.precision, config.rank)
    if by_depth is not None and not (isinstance(by_depth, ListConfig) and len(by_depth)):
        raise ValueError(
            f"alpha_by_depth={by_depth!r} is not a list of alphas from the first block to the "
            f"last: as in alpha_by_depth=[0.2,1.0]."
        )
    if patterns and by_depth is not None:
        raise ValueError(
            "alpha='{PATTERN: VALUE}' and alpha_by_depth= both say the alpha of a layer: give one "
            "of them."
        )
    check_layer_alphas(patterns or {}, list(by_depth or ()))
    if config.weights is None:
        return
    weights = mapping(config.weights)
    if weights is None:
        raise ValueError(
            f"weights={config.weights!r} does not say a weight of each task: as in "
            f"weights='{{{', '.join(f'{task}: 0.5' for task in tasks)}}}'."
        )
    rule = method.task_weights(len(tasks))
    if rule is None:
        raise ValueError(
            f"weights= has no effect on method={method.name}, which does not sum what tasks "
            f"contribute. Those that do: task_arithmetic, weight_average, ties, tsv_merge, ... "
            f"(conf/method: task_weights)."
        )
    check_weights(weights, tasks, rule)


def mapping(node: Any) -> dict[str, Any] | None:
    """Return a mapping of the configuration as plain data, its keys as text; None if it is none."""
    if not isinstance(node, DictConfig):
        return None
    return {str(key): value for key, value in OmegaConf.to_container(node, resolve=True).items()}


def chosen_alpha(config: DictConfig, method: Described, num_tasks: int) -> float:
    """Return alpha of the layers that no pattern or depth has: the configured one or a default."""
    if config.alpha is not None and mapping(config.alpha) is None:
        return config.alpha
    return settled_alpha(method, num_tasks, config.weights)


def settled_alpha(method: Described, num_tasks: int, weights: object = None) -> float:
    """Return alpha where none is given; log it where tsv-bench would choose it.

    That which the method fixes, else 1 beside ``weights`` that scale, else the published one.
    """
    alphas = method.settings["alphas"]
    if len(alphas) == 1:
        return alphas[0]
    published = method.merge_alpha(num_tasks)
    scaled = weights is not None and method.task_weights(num_tasks) == "scale"
    alpha, why = 1.0, ""
    if scaled:
        why = ", as weights= scales"
    elif published is not None:
        alpha, why = published, f", the default of {method.name} without validation"
    log.info(
        f"alpha={alpha:g}{why}. tsv-bench chooses it on validation, from {min(alphas):.2g} to "
        f"{max(alphas):.2g}, here there is none. alpha= takes another."
    )
    return alpha
