"""Names that differ by what training programs put before them are paired; others are not."""

import pytest

from tsv_bench.state_dicts.entries.matching import match

PLAIN = [f"h.{i}.{part}" for i in range(3) for part in ("mlp.weight", "mlp.bias", "norm.weight")]
PLAIN += ["wte.weight", "ln_f.weight", "ln_f.bias"]


def renamed(change):
    return {name: change(name) for name in PLAIN}


OF_ONE_MODEL = {
    "equal": lambda name: name,
    "data parallel": lambda name: f"module.{name}",
    "compiled": lambda name: f"_orig_mod.{name}",
    "lightning": lambda name: f"model.{name}",
    "nested": lambda name: f"module._orig_mod.model.{name}",
    "blocks compiled": lambda name: name.replace("h.1.", "h.1._orig_mod."),
    "with blocks and all": lambda name: "module." + name.replace("mlp.", "_orig_mod.mlp."),
    "old names": lambda n: n.replace("norm.weight", "norm.gamma").replace("ln_f.bias", "ln_f.beta"),
}


@pytest.mark.parametrize("case", OF_ONE_MODEL)
def test_each_name_finds_its_own_whichever_side_is_renamed(case):
    names = renamed(OF_ONE_MODEL[case])
    assert match(PLAIN, list(names.values())).pairs == names
    assert match(list(names.values()), PLAIN).pairs == {new: old for old, new in names.items()}


def test_both_sides_may_have_a_prefix_and_one_of_them_a_head():
    ours, theirs = renamed("model.{}".format), renamed("module.transformer.{}".format)
    expected = {ours[name]: theirs[name] for name in PLAIN}
    found = match(ours.values(), theirs.values())
    assert found.pairs == expected and "'model.' in place of" in found.how
    headed = [*renamed("transformer.{}".format).values(), "lm_head.weight"]
    assert match(PLAIN, headed).pairs == renamed("transformer.{}".format)
    assert match(PLAIN, headed).how == "without their prefix 'transformer.'"


def test_equal_names_are_not_read_otherwise():
    # A part of a model, and one name more: no prefix is sought.
    assert match(PLAIN, PLAIN[:4]).pairs == {name: name for name in PLAIN[:4]}
    assert match(PLAIN, [*PLAIN, "x.wte.weight"]) == match(PLAIN, PLAIN)


def test_two_prefixes_that_fit_as_well_are_not_chosen_from():
    theirs = [f"{side}.{name}" for side in ("query", "passage") for name in PLAIN]
    found = match(PLAIN, theirs)
    assert found.pairs == {} and set(found.rivals) == {"query.", "passage."}


def test_a_parameter_that_is_called_gamma_outside_a_normalization_keeps_its_name():
    ours, theirs = ["ls.gamma", "norm.gamma", "a"], ["module.ls.weight", "module.norm.weight"]
    assert match(ours, [*theirs, "module.a"]).pairs == {"norm.gamma": theirs[1], "a": "module.a"}


def test_names_of_another_model_are_not_paired_by_a_few_that_agree():
    theirs = [f"blocks.{i}.attn.w" for i in range(9)] + ["x.ln_f.weight"]
    assert match(PLAIN, theirs).pairs == {}
