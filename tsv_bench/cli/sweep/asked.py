"""Whether something goes by what a Run has on validation."""

import os

from hydra._internal.core_plugins.basic_sweeper import BasicSweeperConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from tsv_bench.methods.knobs import check_switch


def check_validate(config: DictConfig) -> None:
    """Raise ValueError unless evaluation.validate is true, false or null."""
    if config.evaluation.validate is not None:
        check_switch("evaluation.validate", config.evaluation.validate)


def validation_is_asked(config: DictConfig) -> bool:
    """Return whether the chosen alpha is evaluated on validation even if it is the only one.

    As evaluation.validate says; if that is null, where a sweeper goes by results, of Hydra's or
    W&B's. It costs a validation of every Run of a method with a fixed alpha.
    """
    if config.evaluation.validate is not None:
        return config.evaluation.validate
    hydra = HydraConfig.get()
    by_results = hydra.sweeper._target_ != BasicSweeperConf._target_
    return hydra.mode == RunMode.MULTIRUN and by_results or bool(os.environ.get("WANDB_SWEEP_ID"))
