"""Every yaml composes with its command, and fits the Python that it configures."""

import copy
import inspect
import itertools
from importlib.util import find_spec

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from hydra.utils import instantiate
from made_up.every_method import LEFT_OUT
from made_up.vectors import random_vectors, read
from omegaconf import OmegaConf
from stand_ins import composing
from stand_ins.configurations import composed, fits

from tsv_bench import methods
from tsv_bench.cli import analyze, bench, fetch, finetune, merge, observe, pretrain, report
from tsv_bench.cli import task as task_command
from tsv_bench.cli.config import tasks
from tsv_bench.cli.config.method import make_method
from tsv_bench.cli.config.method_yaml import NOT_KNOBS, described
from tsv_bench.cli.config.search_path import CONF, groups, options
from tsv_bench.merging.scaling.task_weights import Weighted

COMMANDS = {
    "analyze": analyze,
    "bench": bench,
    "fetch": fetch,
    "finetune": finetune,
    "merge": merge,
    "observe": observe,
    "pretrain": pretrain,
    "report": report,
    "task": task_command,
}
# Each option of the groups once: those of other groups than tasks and experiments side by side.
APART = ("experiment", "task")
LINES = [[f"experiment={option}"] for option in options("experiment")] + [
    list(filter(None, line))
    for line in itertools.zip_longest(
        *([f"{group}={option}" for option in options(group)]
          for group in groups() if group not in APART)
    )
]  # fmt: skip
EXTRA = {name: ["checkpoints.folder=mine"] for name in ("folder", "reference")}  # has no default
EXTRA["open_clip"] = [
    "backbone.name=open_clip",
    "backbone.load.architecture=ViT-B-32",
    "backbone.load.pretrained=openai",
]
ABLATIONS = ["tsv_interference_only", "tsv_low_rank"]
# Alphas of the paper's protocol: k / 10 where the merged vector is of one task's size, else k / 30.
TENTHS = [
    "tsv_merge", "dc_merge", "fr_merging", "iso_c", "iso_cts", "knots", "core_space", *ABLATIONS,
]  # fmt: skip
THIRTIETHS = [
    "task_arithmetic", "ties", "breadcrumbs", "consensus_ta", "consensus_ties", "dare_ta",
    "dare_ties", "lata", "subspace_boosting",
]  # fmt: skip


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_every_yaml_composes_with_its_command(line):
    if line == ["experiment=search_rank"] and not find_spec("optuna"):
        pytest.skip("needs tsv_bench[optuna]")
    OmegaConf.to_container(composed_line(line), resolve=True, throw_on_missing=True)


def composed_line(line, *overrides):
    more = [part for option in line for part in EXTRA.get(option.partition("=")[2], [])]
    return composed("bench", *line, *more, *overrides)


def with_option(option, *overrides):
    """tsv-bench with that option, and whatever stands beside it in its line."""
    [line] = [line for line in LINES if option in line]
    return composed_line(line, *overrides)


def test_both_parsers_of_yaml_read_the_same():
    """Tests read these files by libyaml, users by the parser that is written in Python."""
    for path in CONF.rglob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert yaml.load(text, yaml.loader.SafeLoader) == yaml.load(text, yaml.CSafeLoader), path


def test_short_cuts_of_composing_make_no_difference():
    """Tests compose a command line once; what they get is what Hydra makes of it."""
    still = "hydra.sweep.dir=."  # else it has the time in it
    lines = (["method=ties", "+more=1", still], ["method=ties,tsv_merge", still])
    lines += (["method=ties", "suite=mini14", "method.density=0.3", still],)
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="bench"):
        loader = GlobalHydra.instance().config_loader()
        for overrides, mode in itertools.product(lines, (RunMode.RUN, RunMode.MULTIRUN)):
            asked = {"config_name": "bench", "overrides": overrides, "run_mode": mode}
            if mode == RunMode.RUN and "," in overrides[0]:
                with pytest.raises(ConfigCompositionException, match="Ambiguous"):
                    loader.load_configuration(**asked)
                continue
            expected = composing.by_hydra(loader, **asked)
            assert loader.load_configuration(**asked) == expected
            assert loader.load_configuration(**asked) == expected  # from what was kept


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes_and_leaves_no_log_file(command):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(command, return_hydra_config=True)
    logging = OmegaConf.to_container(config.hydra.job_logging, resolve=True)
    assert list(logging["handlers"]) == logging["root"]["handlers"] == ["console"]
    OmegaConf.set_struct(config, False)
    config.pop("hydra")
    OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_configuration_is_shown(command, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [f"tsv-{command}", "--cfg", "job", "--resolve"])
    try:
        COMMANDS[command].main()
    except SystemExit as exit:
        assert not exit.code
    assert f"{list(composed(command))[0]}:" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", options("method"))
class TestMethod:
    def test_config_fits_its_function(self, method):
        serve = instantiate(with_option(f"method={method}").method.serve)
        assert serve.func is getattr(methods, method)
        chosen = make_method(with_option(f"method={method}")).by_default()
        given = chosen.needs.nothing if chosen.needs else {}
        inspect.signature(serve.func).bind({}, **serve.keywords, **given)
        assert dict(chosen.serve({}, **given)) == {}

    def test_name_is_the_file_name_and_texts_are_there(self, method):
        node = with_option(f"method={method}").method
        assert node.name == method
        assert node.label and "arXiv:" in node.paper

    def test_every_knob_reaches_the_function(self, method):
        """Each one offered is passed on from where a user sets it, and none is kept back."""
        node = with_option(f"method={method}").method
        knobs = set(node) - NOT_KNOBS
        taken = set(inspect.signature(getattr(methods, method)).parameters)
        taken -= {"task_vectors", *node.get("needs", ())}
        assert knobs == taken == {key for key in node.serve if not key.startswith("_")}
        changes = {knob: f"{knob} changed" for knob in knobs}
        lines = [f"method.{knob}='{text}'" for knob, text in changes.items()]
        changed = with_option(f"method={method}", *lines)
        assert {knob: changed.method.serve[knob] for knob in knobs} == changes

    def test_a_knob_that_would_not_reach_it_is_refused(self, method):
        for key in ("method.knob", "method.serve.knob"):
            config = copy.deepcopy(with_option(f"method={method}"))
            OmegaConf.update(config, key, 1, force_add=True)  # as by the command line's +
            with pytest.raises((ValueError, TypeError), match="knob"):
                make_method(config)

    def test_alphas_are_those_of_the_paper_to_the_last_digit(self, method):
        alphas = with_option(f"method={method}").method.alphas
        grids = {
            **dict.fromkeys(TENTHS, [k / 10 for k in range(1, 31)]),
            **dict.fromkeys(THIRTIETHS, [k / 30 for k in range(1, 31)]),
            "esm": [k / 10 for k in range(1, 21)],  # the code searches [0, 2] by golden section
            "magmax": [0.5],
            "pcb": [0.8, 0.9, 1.0, 1.1, 1.2, 1.3],
        }
        assert list(alphas) == grids.get(method, [1.0])  # one where alpha is fixed

    def test_a_searched_alpha_has_a_published_default_for_merges(self, method):
        """One a number of tasks, in a sensible range; none where alpha is fixed."""
        said = described(with_option(f"method={method}"))
        defaults = [said.merge_alpha(tasks) for tasks in (2, 8, 14, 20, 30)]
        if len(said.settings["alphas"]) == 1:
            assert defaults == [None] * 5
        else:
            assert all(0.1 <= alpha <= 1.5 for alpha in defaults)

    def test_weights_multiply_what_a_task_contributes(self, method):
        """Equal relative weights, and scales of one, change nothing."""
        said = described(with_option(f"method={method}"))
        rule = said.task_weights(3)
        assert rule in (None, "scale", "relative")
        if rule is None:
            return
        serve = make_method(with_option(f"method={method}")).by_default().serve
        vectors = random_vectors(3)
        weights = dict.fromkeys(vectors, 1 if rule == "scale" else 0.7)
        plain, weighted = read(serve(vectors)), read(Weighted(serve, weights, rule)(vectors))
        torch.testing.assert_close(weighted, plain, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("checkpoints", options("checkpoints"))
def test_checkpoint_sources_fit(checkpoints):
    node = with_option(f"checkpoints={checkpoints}").checkpoints
    fits(node, **({"device": "cpu"} if "finetuning" in node else {}))


@pytest.mark.parametrize("backbone", options("backbone"))
def test_backbones_fit(backbone):
    node = with_option(f"backbone={backbone}").backbone
    assert node.name == backbone == node.load.name
    fits(node.load)
    fits(node.finetune)


@pytest.mark.parametrize("tracker", options("tracker"))
def test_trackers_fit(tracker):
    instantiate(with_option(f"tracker={tracker}").tracker)


def test_recipe_of_the_yaml_is_usable_by_torch():
    recipe = instantiate(composed("pretrain").recipe)
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=recipe.rate, betas=recipe.betas)


@pytest.mark.parametrize("suite", options("suite"))
def test_suite_lists_tasks_once_under_their_own_names(suite):
    config = with_option(f"suite={suite}")
    listed = tasks.named_tasks(suite)
    assert config.suite.name == suite == tasks.suite_name(config)
    assert list(config.suite.tasks) == listed == list(dict.fromkeys(listed))
    assert list(tasks.make_tasks(config.suite.tasks)) == listed


def test_mini8_is_the_beginning_of_mini14():
    assert tasks.named_tasks("mini14")[:8] == tasks.named_tasks("mini8")


def test_another_selection_of_tasks_is_another_suite():
    def name(*overrides):
        return tasks.suite_name(composed("bench", *overrides))

    assert name("suite=mini8", "task@suite.tasks=[signs,shapes]") == "signs+shapes"
    dropped = name("~suite.tasks.land")
    assert dropped.startswith("7-tasks-")
    assert dropped != name("~suite.tasks.signs") != name("+task@suite.tasks=latin") != "mini8"


def test_the_leaderboard_compares_every_method_for_any_number_of_tasks():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("bench", ["experiment=leaderboard"], return_hydra_config=True)
    compared = config.hydra.sweeper.params.method.replace(" ", "").split(",")
    assert sorted(compared) == sorted(set(options("method")) - LEFT_OUT)


def test_a_knob_that_was_added_is_recorded_where_it_is_not_what_it_was_before():
    """Or Runs from before would not be found again, and stand in rows of their own."""

    def recorded(*overrides):
        return make_method(composed("merge", "method=ties", *overrides)).knobs

    assert recorded() == recorded("method.scope=vector") == {"density": 0.2, "merge": "mean"}
    assert recorded("method.scope=tensor")["scope"] == "tensor"
