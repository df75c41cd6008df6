"""Whether something goes by what a Run has on validation, and whether it has that."""

import os

from hydra._internal.core_plugins.basic_sweeper import BasicSweeperConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from tsv_bench.cli.sweep.command import Command
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
    asked = hydra.mode == RunMode.MULTIRUN and goes_by_results(hydra)
    return asked or bool(os.environ.get("WANDB_SWEEP_ID"))


def goes_by_results(hydra: DictConfig) -> bool:
    """Return whether the sweeper is another than Hydra's own, which looks at no results."""
    return hydra.sweeper._target_ != BasicSweeperConf._target_


def check_metric(config: DictConfig) -> None:
    """Raise ValueError if a Run of tsv-bench has nothing on validation."""
    if config.evaluation.validate is not False:
        return
    from tsv_bench.benchmark.normalizer import serves_own_models  # here: they import torch
    from tsv_bench.cli.config.method import make_method

    method = make_method(config)
    fixed = len(method.alphas) == 1 and not method.knob_is_open
    if fixed and not serves_own_models(method):
        raise ValueError(
            f"the sweeper goes by accuracy on validation, which Runs of {method.name} lack by "
            f"evaluation.validate=false, as alpha is fixed. Leave it null."
        )


def check_goes_by(command: Command, config: DictConfig) -> None:
    """Check that a sweeper which goes by results gets one number to be maximized.

    Raises ValueError before the first job.
    """
    name = config.hydra.runtime.choices.get("hydra/sweeper")
    if command.check_metric is None:
        raise ValueError(
            f"hydra/sweeper={name} goes by results, and {command.program} has none that is better "
            f"or worse: tsv-bench and tsv-finetune have accuracy on validation. Leave the sweeper "
            f"away to run all values."
        )
    given = config.hydra.sweeper.get("direction")
    several = OmegaConf.is_list(given)
    wanted = [str(getattr(one, "name", one)) for one in (given if several else [given])]
    if given is not None and wanted != ["maximize"]:
        shown = f"[{','.join(wanted)}]" if several else wanted[0]
        raise ValueError(
            f"hydra.sweeper.direction={shown}: {command.program} gives the sweeper one number, the "
            f"accuracy on validation. Set hydra.sweeper.direction=maximize."
        )
    for key in ("n_trials", "n_jobs"):  # Optuna's
        if (number := config.hydra.sweeper.get(key)) is not None and number < 1:
            raise ValueError(f"hydra.sweeper.{key}={number} is not a whole number from 1 on.")
    command.check_metric(config)
