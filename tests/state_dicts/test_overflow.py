"""What overflows the dtype that is written is refused, whichever dtype and whoever writes."""

import dataclasses

import pytest
import torch
from made_up.merges import finetuned, made, pretrained, write_checkpoints
from made_up.state_dicts import save
from made_up.tracked import PRETRAINED, RUN, SERVED

from tsv_bench.benchmark.weights import write_weights
from tsv_bench.state_dicts.overflow import fitted
from tsv_bench.state_dicts.safetensors_file import DTYPES

FLOATS = [d for d in DTYPES.values() if d.is_floating_point and d != torch.float8_e8m0fnu]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_the_largest_value_fits_and_the_next_does_not(dtype, sign):
    largest = sign * torch.finfo(dtype).max
    values = torch.tensor([[1.0, 2.0], [largest, 3.0]], dtype=torch.float64)
    assert torch.equal(fitted("w", values, dtype).double(), values)
    exponent = 2.0 ** torch.tensor(abs(largest), dtype=torch.float64).log2().ceil()
    values[1, 0] = sign * exponent * (1 if dtype.itemsize < 8 else torch.inf)
    named = str(dtype).removeprefix("torch.")
    with pytest.raises(ValueError, match=f"'w' does not fit {named}: its largest value is"):
        fitted("w", values, dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_fits_no_type(dtype, value):
    with pytest.raises(ValueError, match="does not fit"):
        fitted("w", torch.tensor([1.0, value]), dtype)


@pytest.mark.parametrize(
    ("dtype", "rounded"), [(torch.float8_e4m3fn, 463.0), (torch.float16, 65519.0)]
)
def test_what_is_only_rounded_to_the_largest_value_fits(dtype, rounded):
    found = fitted("w", torch.tensor([rounded]), dtype)
    assert found.float().item() == torch.finfo(dtype).max


def test_integers_are_left_alone():
    counts = torch.tensor([2**40, -1])
    assert torch.equal(fitted("steps", counts, torch.int64), counts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("method", ["task_arithmetic", "tall_mask_ta"])  # both dense writers
def test_a_merge_that_overflows_writes_nothing(tmp_path, dtype, method):
    write_checkpoints(tmp_path)
    base = {n: t.to(dtype) if t.is_floating_point() else t for n, t in pretrained().items()}
    save(base, tmp_path / "base.safetensors")
    large = {n: 100 * t if t.is_floating_point() else t for n, t in finetuned(0).items()}
    save(large, tmp_path / "a.safetensors")
    out, knobs = ("out", {"mask_lambda": 0.4}) if "mask" in method else ("out.safetensors", {})
    with pytest.raises(ValueError, match="does not fit .* Lower alpha"):
        made(tmp_path, method, out, alpha=1e38, knobs=knobs)
    assert not list(tmp_path.rglob("out/*")) and not (tmp_path / "out.safetensors").exists()


def test_weights_of_a_run_that_overflow_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="'w' does not fit float32: .* is inf.* beyond float32"):
        write_weights(dataclasses.replace(RUN, alpha=1e39), PRETRAINED, SERVED, tmp_path)
    assert not list(tmp_path.iterdir())
