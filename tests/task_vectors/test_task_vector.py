"""Lazy task vectors, the policy about layers, and adding back."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tsv_bench.task_vectors.merge import map_layers
from tsv_bench.task_vectors.task_vector import TaskVector, Weights, apply


class Reads(dict):
    """A mapping that remembers what was read."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.names = []

    def __getitem__(self, name):
        self.names.append(name)
        return super().__getitem__(name)


def state(**changes):
    pretrained = {
        "w": torch.arange(6.0).reshape(2, 3),
        "b": torch.ones(3),
        "steps": torch.tensor(7),
        "scale": torch.tensor(2.0),
    }
    return pretrained | changes


def test_delta_is_finetuned_minus_pretrained():
    vector = TaskVector(state(), state(w=torch.zeros(2, 3), steps=torch.tensor(9)))
    assert list(vector) == ["w", "b", "scale"]  # the integer has no delta
    assert len(vector) == 3 and "steps" not in vector
    torch.testing.assert_close(vector["w"], -torch.arange(6.0).reshape(2, 3))
    assert not vector["b"].any()
    with pytest.raises(KeyError):
        vector["steps"]


@pytest.mark.parametrize(
    ("pretrained", "finetuned", "expected"),
    [
        (torch.float16, torch.float16, torch.float32),
        (torch.bfloat16, torch.float32, torch.float32),
        (torch.float32, torch.float64, torch.float64),
    ],
)
def test_delta_is_float32_at_least(pretrained, finetuned, expected):
    # 1024.5 has no float16: subtracting after rounding to it would give 0.
    vector = TaskVector(
        {"w": torch.tensor([1024.0], dtype=pretrained)},
        {"w": torch.tensor([1024.5], dtype=finetuned)},
    )
    tuned = torch.tensor([1024.5], dtype=finetuned).to(expected)
    assert vector["w"].dtype == expected
    assert torch.equal(vector["w"], tuned - 1024)


def test_reads_one_parameter_at_a_time_from_files(tmp_path):
    class File(dict):
        def __init__(self, path):
            handle = safe_open(path, framework="pt")
            super().__init__(dict.fromkeys(handle.keys()))
            self.handle = handle

        def __getitem__(self, name):
            return self.handle.get_tensor(name)

    paths = [tmp_path / "pretrained.safetensors", tmp_path / "finetuned.safetensors"]
    for path, tensors in zip(paths, [state(), state(b=torch.zeros(3))], strict=True):
        save_file(tensors, path)
    vector = TaskVector(*map(File, paths))
    assert torch.equal(vector["b"], -torch.ones(3))


def test_asking_for_names_reads_nothing():
    pretrained, finetuned = Reads(state()), Reads(state())
    vector = TaskVector(pretrained, finetuned)
    doubled = map_layers(vector, lambda name, delta: 2 * delta)
    # Making them looks at shapes, and the type checker of the tests at an item.
    pretrained.names.clear()
    finetuned.names.clear()
    assert "w" in vector and list(vector) == ["w", "b", "scale"] and len(vector) == 3
    assert "w" in doubled and list(doubled) == ["w", "b", "scale"] and len(doubled) == 3
    assert pretrained.names == finetuned.names == []
    doubled["b"]
    assert pretrained.names == finetuned.names == ["b"]


def test_different_parameters_are_named():
    finetuned = state(zeta=torch.ones(1))
    del finetuned["scale"]
    with pytest.raises(ValueError, match="2 appear in only one of them, first 'scale'"):
        TaskVector(state(), finetuned)


def test_different_shapes_are_named():
    with pytest.raises(ValueError, match=r"'w' is \(2, 3\) in the pretrained and \(3, 2\)"):
        TaskVector(state(), state(w=torch.zeros(3, 2)))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_delta_that_is_not_finite_is_named(bad):
    vector = TaskVector(state(), state(b=torch.tensor([0, bad, 0])))
    assert vector["w"].isfinite().all()
    with pytest.raises(ValueError, match="delta of 'b' is not finite"):
        vector["b"]


def test_a_method_sees_the_weights_of_the_layers_that_have_deltas():
    pretrained = {name: t.half() if t.is_floating_point() else t for name, t in state().items()}
    weights = Weights(pretrained, TaskVector(pretrained, pretrained))
    assert "steps" in pretrained and "steps" not in weights and set(weights) < set(pretrained)
    for name in weights:
        assert weights[name].dtype == weights.dtype(name) == torch.float32
        assert torch.equal(weights[name], pretrained[name].float())
    assert torch.equal(weights.rows("w", 1, 2), pretrained["w"][1:2].float())
    with pytest.raises(KeyError):
        weights["steps"]


def test_apply_adds_alpha_times_the_vector_and_keeps_the_rest():
    pretrained = state()
    finetuned = state(w=torch.ones(2, 3), scale=torch.tensor(4.0), steps=torch.tensor(9))
    vector = TaskVector(pretrained, finetuned)
    torch.testing.assert_close(
        apply(pretrained, vector, 1.0), finetuned | {"steps": state()["steps"]}
    )
    half = apply(pretrained, vector, 0.5)
    torch.testing.assert_close(half["w"], (state()["w"] + 1) / 2)
    torch.testing.assert_close(half["scale"], torch.tensor(3.0))
    torch.testing.assert_close(pretrained, state(), rtol=0, atol=0)
    assert all(half[name].data_ptr() != pretrained[name].data_ptr() for name in half)


def test_apply_keeps_the_dtype_and_adds_in_float32():
    pretrained = {"w": torch.tensor([1024.0], dtype=torch.float16)}
    # In float16 the vector would be rounded first (0.7 to 0.7002), the alpha with it.
    model = apply(pretrained, {"w": torch.tensor([0.7])}, 3.0)
    assert model["w"].dtype == torch.float16
    assert torch.equal(model["w"], torch.tensor([1026.1], dtype=torch.float16))


def test_apply_refuses_a_vector_of_another_backbone():
    with pytest.raises(ValueError, match="1 of its layers are not there, first 'v'"):
        apply(state(), {"v": torch.ones(1)}, 1.0)
