"""Whether a Run is validated although its alpha is fixed."""

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf
from stand_ins.configurations import composed

from tsv_bench.cli.sweep.asked import check_validate, validation_is_asked

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
