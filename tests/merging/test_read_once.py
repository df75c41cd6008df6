"""Plain merges read every byte once: hashes, the search for NaN and the merge in one reading."""

import json
import os
from collections import Counter
from functools import partial

import pytest
import torch
from made_up.merges import TASKS, files, made, same, write_checkpoints
from made_up.state_dicts import save

from tsv_bench import methods
from tsv_bench.files.content import sha256
from tsv_bench.merging import merge_files
from tsv_bench.state_dicts import integrity, safetensors_file
from tsv_bench.state_dicts.state_dict import open_state_dict
from tsv_bench.state_dicts.writer import MADE_BY
from tsv_bench.task_vectors import lazy

ONCE = {
    "task_arithmetic": {},
    "weight_average": {},
    "magmax": {},
    "dare_ta": {"density": 0.5, "seed": 0},
    "tall_mask_ta": {"mask_lambda": 0.4},
}


@pytest.fixture(autouse=True)
def nothing_is_known(monkeypatch):
    """Hashes are remembered for as long as a process lives."""
    monkeypatch.setattr(integrity, "_checked", {})
    monkeypatch.setattr(lazy, "BLOCK", 64)


@pytest.fixture
def bytes_read(monkeypatch):
    """How often each byte of each file is read after its header, by file."""
    found, read = {}, safetensors_file.SafetensorsFile.read_bytes

    def counted(file, offset, out):
        own = found.setdefault(file.path, Counter())
        own.update(range(offset, offset + len(out)))
        return read(file, offset, out)

    monkeypatch.setattr(safetensors_file.SafetensorsFile, "read_bytes", counted)
    return found


@pytest.mark.parametrize("name", ONCE)
def test_every_byte_is_read_once_but_for_the_first_look_for_a_change(name, tmp_path, bytes_read):
    write_checkpoints(tmp_path)
    made(tmp_path, name, "out" if "mask" in name else "out.safetensors", knobs=ONCE[name])
    for file in [*files().values(), "base.safetensors"]:
        num_bytes = (tmp_path / file).stat().st_size
        times = bytes_read[tmp_path / file]
        data = [offset for offset in range(num_bytes) if offset in times]
        header = len(open_state_dict(tmp_path / file).headers[file])
        assert data == list(range(header, num_bytes))
        twice = sum(times[offset] > 1 for offset in data)
        assert twice < len(data) / 4, f"{twice} of {len(data)} bytes were read again"


def test_without_a_pretrained_checkpoint_the_one_that_stands_in_is_read_once(tmp_path, bytes_read):
    write_checkpoints(tmp_path)
    made(tmp_path, "weight_average", "out.safetensors", base=None)
    for file in files().values():
        times = bytes_read[tmp_path / file]
        twice = sum(count > 1 for count in times.values())
        assert twice < len(times) / 4, f"{twice} of {len(times)} bytes were read again"


@pytest.mark.parametrize("name", [*ONCE, "ties", "tsv_merge"])
def test_hashes_in_the_metadata_are_those_of_the_files(name, tmp_path):
    write_checkpoints(tmp_path)
    knobs = {**ONCE, "ties": {"density": 0.2}, "tsv_merge": {}}[name]
    output = tmp_path / ("out" if "mask" in name else "out.safetensors")
    made(tmp_path, name, output, knobs=knobs)
    for path in sorted(output.iterdir()) if output.is_dir() else [output]:
        inputs = json.loads(open_state_dict(path).metadata[MADE_BY])["inputs"]
        names = {"pretrained": "base.safetensors", **files()}
        assert inputs == {key: {n: sha256(tmp_path / n)} for key, n in names.items()}


def test_files_with_other_orders_and_other_layers_between_are_hashed_whole(tmp_path):
    """Of another order than the pretrained one's, and with integers that nobody reads."""
    base = {f"layer{i}": torch.randn(9, 3) for i in range(20)} | {"m": torch.arange(50)}
    tuned = {}
    for task, order in {"a": sorted(base), "b": sorted(base, reverse=True)}.items():
        content = {n: base[n] + 1 if base[n].is_floating_point() else base[n] for n in order}
        tuned[task] = save(content, tmp_path / f"{task}.safetensors")
    states = {task: open_state_dict(path) for task, path in tuned.items()}
    reading = integrity.HashedReading(states)
    names = [name for name in base if name != "m"]
    for state in states.values():
        for name in [*names[10:], *names[:10], *names]:
            state.rows(name, 4, 9)
            state.rows(name, 0, 5)
    found = reading.finish()
    assert found == {task: {f"{task}.safetensors": sha256(tuned[task])} for task in tuned}


def test_what_comes_early_is_not_kept_without_bound(tmp_path):
    content = {f"layer{i:02d}": torch.full((8,), float(i)) for i in range(40)}
    path = save(content, tmp_path / "a.safetensors")
    state = open_state_dict(path)
    reading = integrity.HashedReading({"a": state})
    [own] = reading._hashes.values()
    for name in sorted(content, reverse=True):
        state[name]
        assert len(own._early) <= integrity.MOST_EARLY
    assert reading.finish() == {"a": {"a.safetensors": sha256(path)}}


@pytest.mark.parametrize("name", ["task_arithmetic", "ties"])
def test_a_value_that_is_not_finite_is_named_with_its_checkpoint(name, tmp_path):
    write_checkpoints(tmp_path)
    content = dict(open_state_dict(tmp_path / "b.safetensors"))
    layer = next(n for n, t in content.items() if t.is_floating_point() and t.numel() > 9)
    content[layer] = content[layer].clone()
    content[layer].view(-1)[-1] = torch.nan
    save(content, tmp_path / "b.safetensors")
    knobs = {"density": 0.2} if name == "ties" else {}
    with pytest.raises(ValueError, match=f"^b: .*b.safetensors holds NaN or infinity in '{layer}'"):
        made(tmp_path, name, "out.safetensors", knobs=knobs)
    assert not (tmp_path / "out.safetensors").exists()


def test_a_file_that_is_written_to_after_its_last_block_was_read_is_noticed(tmp_path, monkeypatch):
    write_checkpoints(tmp_path)
    finish = integrity.ReadHash.finish

    def late(own):
        os.utime(own._file.path, ns=(1, 1))
        return finish(own)

    monkeypatch.setattr(integrity.ReadHash, "finish", late)
    with pytest.raises(ValueError, match="changed while it was being read"):
        made(tmp_path, "task_arithmetic", "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_methods_that_decompose_check_their_files_before(tmp_path, monkeypatch):
    write_checkpoints(tmp_path)
    checked = []
    monkeypatch.setattr(
        merge_files, "check_inputs", lambda *args, real=merge_files.check_inputs: (
            checked.append(True), real(*args))[1]
    )  # fmt: skip
    merge = partial(
        merge_files.merge, pretrained=tmp_path / "base.safetensors",
        finetuned={t: tmp_path / f"{t}.safetensors" for t in TASKS}, progress=False,
    )  # fmt: skip
    merge(methods.tsv_merge, output=tmp_path / "matrices.safetensors")
    assert checked == [True]
    merge(methods.task_arithmetic, output=tmp_path / "entries.safetensors")
    assert checked == [True]


def test_two_devices_give_what_one_gives(tmp_path):
    """Two names of the CPU stand for two GPUs."""
    write_checkpoints(tmp_path)
    for name, knobs in {"tsv_merge": {}, "ties": {"density": 0.2}, "task_arithmetic": {}}.items():
        [one] = made(tmp_path, name, f"{name}1.safetensors", knobs=knobs)
        [two] = made(tmp_path, name, f"{name}2.safetensors", knobs=knobs, device="cpu,cpu:0")
        same(two, one)
