"""Whether a Run is validated although its alpha is fixed."""

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf
from stand_ins.configurations import composed

from tsv_bench.cli.sweep.asked import (
    check_goes_by,
    check_metric,
    check_validate,
    validation_is_asked,
)
from tsv_bench.cli.sweep.command import Command

HYDRAS = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


@pytest.fixture
def asked(monkeypatch):
    def ask(validate="null", mode="RUN", sweeper=HYDRAS):
        hydra = OmegaConf.create({"mode": RunMode[mode], "sweeper": {"_target_": sweeper}})
        monkeypatch.setattr(HydraConfig, "get", staticmethod(lambda: hydra))
        return validation_is_asked(composed("bench", f"evaluation.validate={validate}"))

    return ask


def test_validation_is_asked_by_whoever_goes_by_it(asked, monkeypatch):
    assert not asked() and not asked(mode="MULTIRUN")
    assert asked(mode="MULTIRUN", sweeper="hydra_plugins.optuna.Sweeper")
    assert not asked(sweeper="hydra_plugins.optuna.Sweeper")  # a single Run
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    assert asked()


def test_what_a_user_says_counts_more(asked, monkeypatch):
    assert asked("true")
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    assert not asked("false")


def test_it_is_true_false_or_null():
    for value in ("true", "false", "null"):
        check_validate(composed("bench", f"evaluation.validate={value}"))
    with pytest.raises(ValueError, match="evaluation.validate='often' is neither true nor false"):
        check_validate(composed("bench", "evaluation.validate=often"))


@pytest.mark.parametrize("method", ["ties", "tsv_merge", "tall_mask_ta", "individual"])
def test_a_run_without_validation_has_no_metric(method):
    check_metric(composed("bench", f"method={method}"))
    fixed = composed(
        "bench", f"method={method}", "method.alphas=[1.0]", "evaluation.validate=false"
    )
    if method in ("tall_mask_ta", "individual"):  # a knob is searched; its own models are validated
        check_metric(fixed)
    else:
        with pytest.raises(ValueError, match=f"Runs of {method} lack by evaluation.validate=false"):
            check_metric(fixed)


def command(program="tsv-bench", check_metric=lambda config: None):
    return Command(program=program, arguments=[], check=lambda c: None, check_metric=check_metric)


def sweeping(**sweeper):
    runtime = {"choices": {"hydra/sweeper": "optuna"}}
    return OmegaConf.create({"hydra": {"sweeper": sweeper, "runtime": runtime}})


def test_a_command_without_a_metric_is_no_work_for_a_sweeper_that_goes_by_one():
    with pytest.raises(
        ValueError, match="^hydra/sweeper=optuna goes by results, and tsv-merge has"
    ):
        check_goes_by(command("tsv-merge", check_metric=None), sweeping())


@pytest.mark.parametrize("direction", ["minimize", ["maximize", "minimize"]])
def test_a_metric_is_to_be_maximized(direction):
    shown = r"\[maximize,minimize]" if isinstance(direction, list) else direction
    said = f"hydra.sweeper.direction={shown}: tsv-bench gives the sweeper one number"
    with pytest.raises(ValueError, match=said):
        check_goes_by(command(), sweeping(direction=direction))
    with pytest.raises(ValueError, match="hydra.sweeper.n_trials=0 is not a whole number from 1"):
        check_goes_by(command(), sweeping(direction="maximize", n_trials=0))
    for good in ({}, {"direction": "maximize"}, {"direction": ["maximize"]}):
        check_goes_by(command(), sweeping(**good))
