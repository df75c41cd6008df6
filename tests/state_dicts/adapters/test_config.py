"""adapter_config.json: what it says of modules, and adapters that are refused by name."""

import json
import math

import peft
import pytest
from made_up.adapter_files import config
from peft.utils.other import get_pattern_key

from tsv_bench.state_dicts.adapters.config import OTHER_FORMS, first_match, read_config


def read(folder, **settings):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(config(**settings)))
    return read_config(path)


@pytest.mark.parametrize("key", OTHER_FORMS)
def test_other_forms_are_refused_by_name(key, tmp_path):
    assert key in peft.LoraConfig.__dataclass_fields__
    with pytest.raises(ValueError, match=f"says {key}=.*merge_and_unload"):
        read(tmp_path, **{key: {"some": "thing"}})


@pytest.mark.parametrize("kind", ["IA3", "ADALORA", "VERA", "PREFIX_TUNING", None])
def test_other_kinds_are_refused_by_name(kind, tmp_path):
    with pytest.raises(ValueError, match=f"peft_type={kind!r}; of adapters only LORA"):
        read(tmp_path, peft_type=kind)


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_16", "olora", "corda", "lora_ga", "loftq"])
def test_what_changes_the_base_is_refused_by_name(start, tmp_path):
    with pytest.raises(ValueError, match=f"init_lora_weights='{start}'.*changed base"):
        read(tmp_path, init_lora_weights=start)


def test_unknown_start_is_said(tmp_path, caplog):
    for start in (True, False, "gaussian", "eva", "orthogonal"):
        read(tmp_path, init_lora_weights=start)
    assert not caplog.text
    read(tmp_path, init_lora_weights="new_one")
    assert "'new_one', which is unknown" in caplog.text


PATTERNS = {"q_proj": 4, r".*\.0\.v_proj": 5, "layers.1.k_proj": 6, "proj": 7}
MODULES = (
    "model.layers.0.q_proj", "q_proj", "my_q_proj", "layers.0.v_proj", "layers.10.v_proj",
    "model.layers.1.k_proj", "layers.11.k_proj", "layers.1.proj",
)  # fmt: skip


@pytest.mark.parametrize("module", MODULES)
def test_patterns_fit_as_in_peft(module, tmp_path):
    theirs = get_pattern_key(list(PATTERNS), module)
    assert (first_match(PATTERNS, module) or module) == theirs
    found = read(tmp_path, r=8, lora_alpha=16, rank_pattern=PATTERNS, use_rslora=True)
    rank = PATTERNS.get(theirs, 8)
    assert found.rank_of(module) == rank
    assert found.scale_of(module) == 16 / math.sqrt(rank)


@pytest.mark.parametrize(
    "settings",
    [
        {"r": "8"},
        {"r": True},
        {"lora_alpha": "x"},
        {"rank_pattern": [1]},
        {"rank_pattern": {"q": 1.5}},
        {"rank_pattern": {"(a+)+b": 2}},
        {"rank_pattern": {"(": 2}},
        {"alpha_pattern": {"q": "x"}},
        {"trainable_token_indices": [-1]},
        {"trainable_token_indices": {"embed": ["x"]}},
    ],
)
def test_what_is_no_configuration_is_refused(settings, tmp_path):
    with pytest.raises(ValueError, match="says|has under"):
        read(tmp_path, **settings)
