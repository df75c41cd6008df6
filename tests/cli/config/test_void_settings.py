"""Every command that takes a setting warns if it has no effect beside the others."""

import pytest
import torch
from hydra.utils import instantiate
from made_up.every_method import seeing
from made_up.merges import merge, write_checkpoints
from made_up.vectors import close, random_vectors, read
from omegaconf import OmegaConf
from stand_ins.commands import SMALL, tsv

from tsv_bench.cli.config.search_path import CONF, options
from tsv_bench.cli.config.void_settings import void_settings
from tsv_bench.data import cache
from tsv_bench.methods.needs import KEYS
from tsv_bench.methods.served import void_patterns

pytestmark = pytest.mark.usefixtures("without_shape_checks")
NO_EFFECT = "has no effect"
# For each knob that counts only sometimes, two values with different results where it counts.
VALUES = {
    "threshold": (-0.5, 0.5),
    "iterations": (1, 30),
    "learning_rate": (1e-3, 1e6),
    "rank_fraction": (0.1, 0.9),
    "svd": ("gram", "svd"),
    "exclude": (["proj"], ["in_proj_weight"]),
    "split_qkv": (False, True),
    "seed": (0, 1),
    "relative_learning_rate": (0.03, 0.3),
    "anchor_alpha": (0.5, 1.5),
    "start_alpha": (0.1, 0.5),
    "eps": (1e-3, 1.0),
    "density": (0.1, 0.9),
    "trim": ("vector", "layer"),
    "epochs": (0, 1),
    "batch_size": (5, 12),  # of 12 images
    "penalty": (0, 1e12),  # beside a learning rate of 1e7
    "confidence": (0.5, 5),
    "factor": (2, 9),
    "scope": ("vector", "tensor"),
}
UNMET = {
    "solver": "closed_form", "drop": "linear", "relative_learning_rate": 0.05,
    "eps_relative": 0.05, "rule": "sum", "data_free": True,
    "rescale": "code",
}  # fmt: skip
MET = {"start": "task_arithmetic"}  # where the default is what it does not count beside
ROUNDING = {"svd"}  # whose results differ only by rounding
RULES = [
    (name, knob, other, wanted)
    for name in options("method")
    if name != "merge3"  # a search may end the same: methods/evolved/test_merge3.py
    for knob, conditions in (OmegaConf.load(CONF / "method" / f"{name}.yaml").get("only_if") or {}
    ).items()
    for other, wanted in conditions.items()
    if knob not in KEYS  # of what a method sees: they never reach its function
    if "." not in knob  # of a form with a base: commands/test_merge_with_base.py
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    write_checkpoints(tmp_path)
    return tmp_path


def served(name, vectors, knobs):
    node = OmegaConf.load(CONF / "method" / f"{name}.yaml")
    node.update(knobs)
    serve = instantiate(node.serve)
    return read(seeing(serve.func, **serve.keywords)(vectors))["task0"]


@pytest.mark.parametrize(("name", "knob", "other", "wanted"), RULES)
def test_what_the_yaml_says_of_a_knob_is_true(name, knob, other, wanted):
    """Two values give the same result if the condition is not met, and others if it is."""
    node = OmegaConf.load(CONF / "method" / f"{name}.yaml")
    assert {knob, other} < set(node)
    vectors = random_vectors(3)
    if OmegaConf.is_dict(wanted):
        unmet = wanted["not"]
        met = node[other] if node[other] != unmet else MET[other]
    else:
        met = wanted
        unmet = UNMET[other]
    for condition, same in ((unmet, True), (met, False)):
        first, second = (
            served(name, vectors, {knob: value, other: condition}) for value in VALUES[knob]
        )
        equal = all(torch.allclose(first[layer], second[layer], **close) for layer in first)
        assert equal == same or knob in ROUNDING


def test_there_is_something_to_say():
    assert {name for name, *_ in RULES} >= {"lata", "wudi", "cart", "dare_ta", "dare_ties"}


MERGES = {
    "method=lata method.threshold=0.9": "method.threshold=0.9 has no effect: it counts only with "
    "method.drop=threshold, and that is linear.",
    "method=wudi method.solver=closed_form method.iterations=5": "method.iterations=5 has no effect"
    ": it counts only with method.solver=adam, and that is closed_form.",
    "method=cart method.centered_scale=0 method.svd=svd": "method.svd=svd has no effect: it counts "
    "only where method.centered_scale is not 0.",
    "method=dare_ta method.density=1 method.seed=3": "method.seed=3 has no effect: it counts only w"
    "here method.density is not 1.",
    "precision=float16 rank=4 cache.max_gb=3 method.alphas=[0.5]": "precision=float16 has no effec"
    "t: it counts only with write=compressed or write=lora, and that is model.\n"
    "rank=4 has no effect: it counts only with write=lora, and that is model.\n"
    "cache.max_gb=3 has no effect: it counts only where cache.folder is not null\n"
    "method.alphas=[0.5] has no effect: it counts only in tsv-bench, which searches one; here alp",
    "write=vector alpha=0.3": "alpha=0.3 has no effect: it counts only with write=model",
    "method.exclude=[visual.proj,c_fc,bias]": "exclude: the pattern 'c_fc' fits no two-dimensional "
    "layer, so it has no effect. There are 5, as 'blocks.0.c_proj.weight', 'blocks.0.in_proj_",
    "method.split_qkv=true method.exclude=[in_proj_weight]": "split_qkv=true has no effect: no matr"
    "ix is a fused attention projection",
}


@pytest.mark.parametrize("arguments", MERGES)
def test_a_merge_says_what_has_no_effect(folder, arguments):
    said = merge(folder, "out.safetensors", *arguments.split()).err
    lines = MERGES[arguments].splitlines()
    assert all(line in said for line in lines)
    expected = len(lines) + ("c_fc" in arguments)  # the bias has one dimension
    assert said.count(NO_EFFECT) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        "method=lata write=vector",  # a default that does not count
        "method=lata method.threshold=0.95",  # set to that
        "method=lata method.drop=threshold method.threshold=0.9 alpha=0.3",
        "method=cart method.centered_scale=0",
        "method=dare_ties method.density=0.9 method.seed=3",
        "method.split_qkv=true method.exclude=[visual.*,c_proj]",
    ],
)
def test_a_merge_says_nothing_where_there_is_nothing_to_say(folder, arguments):
    assert NO_EFFECT not in merge(folder, "out.safetensors", *arguments.split()).err


def test_a_benchmark_says_it_once_and_before_the_work(tmp_path, monkeypatch):
    def stop(*args):
        raise ValueError("went to work")

    monkeypatch.setattr(cache, "build_dataset", stop)
    swept = tsv(tmp_path, "bench", "method=lata", "method.threshold=0.9", *SMALL)
    before, worked, _ = swept.err.partition("went to work")
    assert worked and before.count("method.threshold=0.9 has no effect") == 1
    threshold = ["method=lata", "method.threshold=0.9", "method.drop=threshold"]
    assert NO_EFFECT not in tsv(tmp_path, "bench", *threshold, *SMALL).err


def test_a_method_of_the_users_own_may_say_it_too(folder):
    (folder / "my_conf" / "method").mkdir(parents=True)
    text = (CONF / "method" / "lata.yaml").read_text().replace("name: lata", "name: mine")
    (folder / "my_conf" / "method" / "mine.yaml").write_text(
        text.replace("threshold: 0.95", "threshold: 0.9")
    )
    own = ["--config-dir", "my_conf", "method=mine", "overwrite=true"]
    for value, times in ((0.9, 0), (0.95, 1)):  # its own default counts
        said = merge(folder, "out.safetensors", *own, f"method.threshold={value}").err
        assert said.count(NO_EFFECT) == times


@pytest.mark.parametrize("wrong", ["[threshold]", "{threshold: [drop]}", "{threshold: 1}"])
def test_what_cannot_be_understood_is_refused(wrong):
    with pytest.raises(ValueError, match="method.only_if has .* needs of others, as in {thresh"):
        list(void_settings(OmegaConf.create(f"{{only_if: {wrong}}}"), {}, set(), "method."))


def test_patterns():
    shapes = {"a.in_proj_weight": (12, 4), "a.weight": (4, 4), "bias": (4,)}
    assert not [*void_patterns(shapes, None, False), *void_patterns(shapes, ["a.*"], False)]
    assert not [*void_patterns(shapes, None, True)]
    assert len([*void_patterns(shapes, ["b.*", "bias", "weight"], False)]) == 2
    assert len([*void_patterns(shapes | {"a.in_proj_weight": (8, 4)}, None, True)]) == 1
    assert len([*void_patterns(shapes, ["in_proj_weight"], True)]) == 1


@pytest.mark.parametrize(("found", "void"), [("model", False), ("lora", False), ("vector", True)])
def test_a_setting_may_count_beside_several_values(found, void):
    node = OmegaConf.create({"only_if": {"alpha": {"write": ["model", "lora"]}}, "write": found})
    node.alpha = 0.5
    said = list(void_settings(node, OmegaConf.create(), {"alpha"}))
    expected = "alpha=0.5 has no effect: it counts only with write=model or write=lora, and that is"
    assert said == ([f"{expected} vector."] if void else [])
