"""Methods that decompose matrices take an adapter's factors, and merge as from the whole deltas."""

import json

import pytest
import torch
from made_up.adapter_files import PREFIX, config
from safetensors.torch import load_file, save_file
from torch.linalg import svd

from tsv_bench import methods
from tsv_bench.methods.matrixwise import tsv
from tsv_bench.state_dicts.adapters.adapter import AdapterStateDict
from tsv_bench.state_dicts.inputs import open_inputs

SHAPES = {"tall": (40, 24), "wide": (24, 40), "attn.qkv": (36, 12), "still": (12, 12)}
RANKS = {"a": 2, "b": 3, "c": 2}
# Layers of which both ways are rounded differently; values are of order ten, condition numbers of
# concatenations up to a hundred.
near = {"rtol": 0, "atol": 1e-8}


def write(folder, dtype=torch.float64):
    """A base and three adapters, of which the last changes one matrix less."""
    state = {f"{name}.weight": torch.randn(shape, dtype=dtype) for name, shape in SHAPES.items()}
    state |= {"bias": torch.randn(24, dtype=dtype)}
    save_file(state, folder / "base.safetensors")
    for task, r in RANKS.items():
        changed = [name for name in SHAPES if name != "still" and (task, name) != ("c", "tall")]
        tensors = {}
        for name in changed:
            m, n = SHAPES[name]
            tensors[f"{PREFIX}{name}.lora_A.weight"] = torch.randn(r, n, dtype=dtype)
            tensors[f"{PREFIX}{name}.lora_B.weight"] = r * torch.randn(m, r, dtype=dtype)
        (folder / task).mkdir()
        save_file(tensors, folder / task / "adapter_model.safetensors")
        settings = json.dumps(config(r=r, lora_alpha=r))
        (folder / task / "adapter_config.json").write_text(settings)
    return open_inputs(folder / "base.safetensors", {task: folder / task for task in RANKS}).vectors


@pytest.fixture
def vectors(tmp_path):
    return write(tmp_path)


@pytest.fixture
def unread(monkeypatch):
    """Fail where a delta of a matrix is multiplied out."""
    delta = AdapterStateDict.delta

    def checked(self, name, start=0, stop=None):
        assert self.rank(name) == 0, f"{name} was multiplied out"
        return delta(self, name, start, stop)

    monkeypatch.setattr(AdapterStateDict, "delta", checked)


METHODS = {
    "tsv_merge": [{}, {"split_qkv": True}, {"rank_fraction": 1.0}, {"rank_fraction": 0.04},
                  {"polar": "svd"}],
    "tsv_low_rank": [{}],
    "iso_c": [{"mean_over": "spanned"}, {"mean_over": "all"},
              {"mean_over": "all", "split_qkv": True}],
    "knots": [{"rule": "sum"}, {"trim": "layer"}, {"trim": "layer", "split_qkv": True}, {},
              {"density": 1.0}],
    "core_space": [{"rule": "sum"}, {"rule": "sum", "split_qkv": True}],
}  # fmt: skip
SPANNED = {"mean_over": "spanned"}
CASES = [(method, knobs) for method, listed in METHODS.items() for knobs in listed]


@pytest.mark.parametrize(("method", "knobs"), CASES, ids=str)
def test_merge_is_that_of_the_whole_deltas(method, knobs, vectors, request):
    whole = {task: dict(vector.items()) for task, vector in vectors.items()}
    expected = dict(getattr(methods, method)(whole, **knobs)["a"].items())
    request.getfixturevalue("unread")
    found = dict(getattr(methods, method)(vectors, **knobs)["a"].items())
    assert not found["still.weight"].any() and not found["bias"].any()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        torch.testing.assert_close(found[name], tensor, **near)


def test_compressed_task_vectors_are_the_whole_ones(vectors):
    whole = {task: dict(vector.items()) for task, vector in vectors.items()}
    served = methods.tsv_compress(vectors, rank_fraction=0.5)
    for task, vector in served.items():
        for name, tensor in whole[task].items():
            torch.testing.assert_close(vector[name], tensor, **near)
        shapes = [tuple(shape) for shape in vector.factor_shapes("wide.weight")]
        assert shapes == [(24, RANKS[task]), (RANKS[task],), (RANKS[task], 40)]


def test_iso_c_of_adapters_takes_the_mean_over_what_they_span(vectors, caplog):
    found = methods.iso_c(vectors)["a"]["wide.weight"]
    total = sum(vector["wide.weight"] for vector in vectors.values())
    u, s, vh = svd(total, full_matrices=False)
    rank = sum(RANKS.values())
    torch.testing.assert_close(found, s[:rank].mean() * u[:, :rank] @ vh[:rank], **near)
    whole = {task: dict(vector.items()) for task, vector in vectors.items()}
    of_all = methods.iso_c(whole)["a"]["wide.weight"]  # of whole checkpoints as ever
    torch.testing.assert_close(of_all, found * rank / 24, **near)


@pytest.mark.parametrize("thin", [tsv.THIN, 0])
def test_float32_agrees_too(thin, tmp_path, monkeypatch):
    """Within 1e-6 of the largest entry: 3e-7 in sixty draws."""
    monkeypatch.setattr(tsv, "THIN", thin)
    vectors = write(tmp_path, torch.float32)
    whole = {task: dict(vector.items()) for task, vector in vectors.items()}
    for method, knobs in {"tsv_merge": {}, "knots": {"rule": "sum"}, "iso_c": SPANNED}.items():
        served, expected = (getattr(methods, method)(v, **knobs)["a"] for v in (vectors, whole))
        for name in ("tall.weight", "wide.weight", "attn.qkv.weight"):
            scale = expected[name].abs().max()
            near = {"rtol": 0, "atol": 1e-6}
            torch.testing.assert_close(served[name] / scale, expected[name] / scale, **near)


def test_triplets_of_fused_projections_are_apart_if_they_are_split(vectors):
    delta = vectors["b"]["attn.qkv.weight"]
    u, s, vh = vectors["b"].recall("attn.qkv.weight", 2, "gram-split")
    expected = torch.stack([svd(part).S[:2] for part in delta.chunk(3)])
    torch.testing.assert_close(s, expected, **near)
    assert u.shape == (3, 12, 2) and vh.shape == (3, 2, 12)


def test_untrained_adapters_change_nothing(tmp_path):
    write(tmp_path)
    for task in RANKS:
        path = tmp_path / task / "adapter_model.safetensors"
        save_file({key: t * ("lora_A" in key) for key, t in load_file(path).items()}, path)
    tasks = {task: tmp_path / task for task in RANKS}
    vectors = open_inputs(tmp_path / "base.safetensors", tasks).vectors
    for method in METHODS:
        for tensor in getattr(methods, method)(vectors)["a"].values():
            assert not tensor.any()
