"""Launchers and sweepers: what they need, and our settings of theirs."""

import pytest
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from tsv_bench.cli.config.overrides import checked
from tsv_bench.cli.config.search_path import CONF
from tsv_bench.cli.sweep.plugins import EXTRAS, check_option, plugin_of

OURS = [(f"hydra/{p.parent.name}", p.stem) for p in sorted((CONF / "hydra").glob("*/*.yaml"))]
THEIRS = [(group, name) for group, names in EXTRAS.items() for name in names]


@pytest.mark.parametrize(("group", "name"), [*OURS, *THEIRS])
def test_what_is_not_installed_is_named_with_its_extra(group, name):
    extra = EXTRAS[group][plugin_of(group, name)]
    said = rf"{group}={name} needs .* is not installed. .* pip install 'tsv_bench\[{extra}\]'"
    with pytest.raises(ValueError, match=said):
        check_option(group, name, [name for _, name in OURS])
    check_option(group, name, [name, plugin_of(group, name)])


def test_an_experiment_says_what_it_needs(monkeypatch):
    monkeypatch.setattr(ConfigLoaderImpl, "get_group_options", lambda *args: ["basic"])
    with pytest.raises(ValueError, match=r"hydra/sweeper=optuna needs .*tsv_bench\[optuna\]"):
        checked("bench", ["experiment=search_rank"])
    assert checked("bench", ["experiment=null"]) == []


def test_other_names_are_answered_with_all_that_there_are():
    with pytest.raises(ValueError, match="unknown hydra/launcher 'jblib'; did you mean 'joblib'"):
        check_option("hydra/launcher", "jblib", ["basic"])
    with pytest.raises(ValueError, match="'x'. There are: basic, joblib, ray, submitit_local, sub"):
        check_option("hydra/launcher", "x", ["basic"])


@pytest.mark.parametrize(("group", "name"), OURS)
def test_our_settings_are_some_that_the_plugin_has(group, name):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        plugin = plugin_of(group, name)
        if plugin not in loader.get_group_options(group):
            pytest.skip(f"needs tsv_bench[{EXTRAS[group][plugin]}]")
        line = f"{group}={name}"
        assert f"{group}={name} " in (CONF / f"{group}/{name}.yaml").read_text()
        config = loader.load_configuration("bench", [line], RunMode.MULTIRUN)
        theirs = loader.load_configuration("bench", [f"{group}={plugin}"], RunMode.MULTIRUN)
        of = group.split("/")[1]
        assert config.hydra[of]._target_ == theirs.hydra[of]._target_
        assert config.hydra[of] != theirs.hydra[of]
