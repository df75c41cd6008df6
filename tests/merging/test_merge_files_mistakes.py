"""A mistake in a merge gives one message before any long work, and leaves no files behind."""

import contextlib
import math
import re
import shutil
from functools import partial

import pytest
import torch
from made_up.merges import finetuned, made, merge, pretrained, write_checkpoints
from made_up.state_dicts import save, save_sharded
from safetensors.torch import load_file
from stand_ins.commands import tsv

from tsv_bench import methods
from tsv_bench.merging import dense_writer, merge_files
from tsv_bench.methods.matrixwise import decomposition
from tsv_bench.task_vectors import order_statistics
from tsv_bench.task_vectors.task_vector import TaskVector

DEFAULTS = {
    "pretrained": "base.safetensors",
    "finetuned": "{a: a.safetensors, b: b.safetensors}",
    "output": "out.safetensors",
    "cache.folder": "null",
}


class Code:
    def __reduce__(self):
        return open, ("ran", "w")


@pytest.fixture
def folder(tmp_path):
    write_checkpoints(tmp_path)
    return tmp_path


@pytest.fixture
def no_work(monkeypatch):
    """Fail if more is computed than the trial of the knobs on made-up vectors, one 2 x 2 layer."""
    svd, threshold = decomposition.truncated_svd, order_statistics.trim_threshold

    def tiny_svd(matrices, *args):
        assert matrices.shape[-2:] == (2, 2), "the method went to work"
        return svd(matrices, *args)

    def tiny_threshold(vector, density):
        assert not isinstance(vector, TaskVector), "the method went to work"
        return threshold(vector, density)

    monkeypatch.setattr(decomposition, "truncated_svd", tiny_svd)
    monkeypatch.setattr(order_statistics, "trim_threshold", tiny_threshold)
    monkeypatch.setattr(
        dense_writer, "stream", lambda *args: pytest.fail("the method went to work")
    )


def contents(folder):
    return {p: p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def refused(folder, *arguments):
    """Return the one message of a refused merge; check that it left all files as they were."""
    given = dict(argument.split("=", 1) for argument in arguments)
    settings = {key: value for key, value in (DEFAULTS | given).items() if value != "MISSING"}
    before = contents(folder)
    result = tsv(folder, "merge", *(f"{key}={value}" for key, value in settings.items()))
    assert result.code == 1 and "Traceback" not in result.err and result.out == ""
    assert contents(folder) == before
    [message] = [line for line in result.err.splitlines() if "tsv-merge: error: " in line]
    return message.partition("tsv-merge: error: ")[2]


def raised(folder, *, finetuned=None, output="out.safetensors", method="tsv_merge", **settings):
    """Return the function's error message, which takes a tenth of the command's time."""
    tuned = finetuned or {"a": "a.safetensors", "b": "b.safetensors"}
    serve = partial(getattr(methods, method), **({"density": 0.2} if method == "ties" else {}))
    before = contents(folder)
    base = settings.pop("base", "base.safetensors")
    with contextlib.chdir(folder), pytest.raises((ValueError, OSError)) as refused:
        merge_files.merge(serve, base, tuned, output, progress=False, **settings)
    assert contents(folder) == before
    return str(refused.value)


OF_THE_COMMAND = {
    "method=tsv_mrge": "unknown method 'tsv_mrge'; did you mean 'tsv_merge'?",
    "method=ties method.densty=0.1": "unknown key 'densty' in method; did you mean 'density'?",
    "pretraind=base.safetensors": "unknown key 'pretraind'; did you mean 'pretrained'?",
    "method.rank_fraction=1.5": "rank_fraction=1.5 is not in (0, 1]",
    "method=ties method.density=2": "density=2 is not in (0, 1]",
    "alpha=big": "alpha='big' is not a number",
    "device=tpu": "device=tpu: 'tpu' is none that torch can use here. There are: cpu",
    "device=cuda": "device=cuda: 'cuda' is none that torch can use here. There are: cpu.",
    "threads=none": "threads='none' is not a whole number of at least 1",
    "cache.folder=cache cache.max_gb=0": "cache.max_gb=0 is not a number above zero",
    "pretrained=MISSING": "pretrained= is missing. As in: tsv-merge method=tsv_merge pretrained=",
    "finetuned=MISSING": "finetuned= is missing. As in: tsv-merge",
    "output=MISSING": "output= is missing. As in: tsv-merge",
    "pretrained=3": "pretrained=3 is not a path",
    "output=[out]": "output=['out'] is not a path",
    "finetuned=a.safetensors": "finetuned='a.safetensors' does not name the tasks' checkpoints",
    "finetuned={a:null}": "finetuned={'a': None} does not name the tasks' checkpoints",
    "finetuned={a/b:a.safetensors}": "the task's name is 'a/b', which becomes a part of",
    "output=out.pt": "output=out.pt does not end in .safetensors, the format that is written",
    "method=ties write=compressed output=out": "write=compressed stores the low-rank factors of",
    "output=a.safetensors overwrite=true": "output a.safetensors is the checkpoint of a: name",
}


@pytest.mark.parametrize("mistake", OF_THE_COMMAND)
def test_wrong_arguments(mistake, folder, no_work, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert OF_THE_COMMAND[mistake] in refused(folder, *mistake.split())


OF_THE_FUNCTION = [
    ({"alpha": math.nan}, "alpha=nan is not a number"),
    ({"alpha": math.inf}, "alpha=inf is not a number"),
    ({"alpha": 1e39}, "alpha=1e+39 is not a number that float32 holds."),
    ({"alpha": None}, "alpha=None is not a number"),
    ({"alpha": True}, "alpha=True is not a number"),
    ({"write": "weights"}, "write='weights' is unknown. There are: model, vector, compressed,"),
    ({"precision": "int8"}, "precision='int8' is unknown. There are: float32, bfloat16, float16."),
    (
        {"finetuned": {"..": "a.safetensors"}},
        "the task's name is '..', which becomes a part of",
    ),
    ({"finetuned": {"": "a.safetensors"}}, "the task's name is '', which becomes a part of"),
    ({"finetuned": {"pretrained": "a.safetensors"}}, "the task's name 'pretrained' is taken"),
    ({"output": "out"}, "output=out does not end in .safetensors"),
    ({"method": "individual"}, "output=out.safetensors names one file, but this writes one for"),
    ({"method": "tsv_compress", "write": "compressed"}, "output=out.safetensors names one file"),
    ({"write": "compressed", "output": "out"}, "Choose method=tsv_compress, a method of masks"),
    ({"output": "./base.safetensors", "overwrite": True}, "is the checkpoint of pretrained: name"),
    ({"method": "individual", "output": ".", "overwrite": True}, "a.safetensors is the checkpoint"),
    ({"output": "a.safetensors/b/out.safetensors"}, "a.safetensors (it is a file). Choose another"),
]


@pytest.mark.parametrize(("settings", "message"), OF_THE_FUNCTION)
def test_wrong_settings(settings, message, folder, no_work):
    assert message in raised(folder, **settings)


def cut(folder, state):
    path = folder / "a.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def spoiled(name, value):
    def spoil(folder, state):
        state[name].view(-1)[-1] = value
        save(state, folder / "a.safetensors")

    return spoil


def spoiled_base(folder, state):
    spoiled("blocks.0.in_proj_bias", torch.nan)(folder, state := pretrained())
    save(state, folder / "base.safetensors")
    save(finetuned(0), folder / "a.safetensors")


def with_code(folder, state):
    save(state | {"code": Code()}, folder / "a.pt", "torch")


def reshaped(folder, state):
    save(state | {"visual.proj": torch.ones(12, 13)}, folder / "a.safetensors")


FILES = {
    "a: no checkpoint at a.safetensors. Accepted are a safetensors file": lambda folder, state: (
        folder / "a.safetensors"
    ).unlink(),
    "pretrained: no checkpoint at base.safetensors": lambda folder, state: (
        folder / "base.safetensors"
    ).unlink(),
    "a: a.safetensors is not a whole safetensors file": cut,
    "a: a.safetensors is not a checkpoint: it is a Git LFS pointer": lambda folder, state: (
        folder / "a.safetensors"
    ).write_text("version https://git-lfs.github.com/spec/v1"),
    "needs code to be run, io.open, which was not executed": with_code,
    "a: cannot subtract checkpoints with different parameters: 2 appear in only one of them, first "
    "'frozen'": lambda folder, state: save(
        {"frozen2" if n == "frozen" else n: t for n, t in state.items()}, folder / "a.safetensors"
    ),
    "a: cannot subtract checkpoints of different shapes: 'visual.proj' is (12, 12) in the "
    "pretrained and (12, 13) in the fine-tuned one": reshaped,
    "a: cannot subtract integers from weights: 'visual.proj' is torch.float32 in the pretrained "
    "and torch.int64 in the fine-tuned one": lambda folder, state: save(
        state | {"visual.proj": state["visual.proj"].long()}, folder / "a.safetensors"
    ),
    "a: a.safetensors holds NaN or infinity in 'visual.proj'": spoiled("visual.proj", torch.nan),
    "a: a.safetensors holds NaN or infinity in 'logit_scale'": spoiled("logit_scale", -torch.inf),
    "pretrained: base.safetensors holds NaN or infinity in 'blocks.0.in_proj_bias'": spoiled_base,
    "every fine-tuned checkpoint equals the pretrained one at base.safetensors": lambda f, state: [
        save(pretrained(), f / f"{task}.safetensors") for task in "ab"
    ],
}


@pytest.mark.parametrize("message", FILES)
def test_files_that_cannot_be_merged(message, folder, no_work):
    FILES[message](folder, finetuned(0))
    a = "a.pt" if (folder / "a.pt").exists() else "a.safetensors"
    settings = {"finetuned": {"a": a, "b": "b.safetensors"}, "output": "new/out.safetensors"}
    for method in ("tsv_merge", "ties"):
        assert message in raised(folder, method=method, **settings)
    assert not (folder / "ran").exists()


def test_a_file_that_cannot_be_merged_is_one_message_of_the_command(folder, no_work):
    spoiled("visual.proj", torch.nan)(folder, finetuned(0))
    message = refused(folder, "method=ties", "output=new/out.safetensors")
    assert message.startswith("a: a.safetensors holds NaN or infinity in 'visual.proj'. Its train")


def test_a_task_that_changes_nothing_is_a_warning(folder):
    save(pretrained(), folder / "b.safetensors")
    assert (
        "b equals the pretrained checkpoint: it changes nothing."
        in merge(folder, "out.safetensors").err
    )
    assert (folder / "out.safetensors").exists()


def test_a_disk_that_is_too_small(folder, no_work, monkeypatch):
    usage = shutil.disk_usage(folder)._replace(free=5000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    message = raised(folder, output="new/out.safetensors")
    assert f"{folder} has 0 MB free, 0 MB are needed. Make room, or choose" in message


def test_a_disk_that_is_too_small_for_all_compressed_files(folder, monkeypatch):
    sizes = {task: (folder / f"{task}.safetensors").stat().st_size for task in ("a", "b")}
    usage = shutil.disk_usage(folder)._replace(free=max(sizes.values()) + 1000)  # for one of them
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="Make room, or choose"):
        merge_files.merge(
            partial(methods.tsv_compress, rank_fraction=1.0),
            folder / "base.safetensors",
            {task: folder / f"{task}.safetensors" for task in sizes},
            folder / "small",
            write="compressed",
            progress=False,
        )
    assert not (folder / "small").exists()


def test_values_that_float16_cannot_hold_are_named(folder):
    base = {n: t.half() if t.is_floating_point() else t for n, t in pretrained().items()}
    save(base, folder / "half.pt")
    message = refused(folder, "pretrained=half.pt", "alpha=1e9")
    assert "does not fit float16: its largest value is" in message
    assert "and 6.55e+04 is the largest that this type has. Lower alpha, or write" in message


def test_an_output_that_is_there_is_kept_unless_told_otherwise(folder):
    [whole] = made(folder, "tsv_merge", "out.safetensors")
    message = refused(folder)
    assert "output out.safetensors is there already. Name another, or replace it with" in message
    merge(folder, "out.safetensors", "alpha=0.5", "overwrite=true")
    half = load_file(folder / "out.safetensors")
    assert not torch.equal(half["visual.proj"], whole["visual.proj"])


def test_a_folder_that_a_merge_has_written_is_replaced_and_no_other(folder):
    save_sharded(folder / "base", content=pretrained())
    settings = {"base": "base", "output": "out"}
    [before] = made(folder, "tsv_merge", **settings)
    assert "output out is there already" in raised(folder, **settings)
    (folder / "out" / "notes.txt").write_text("mine")
    [after] = made(folder, "tsv_merge", alpha=0.1, overwrite=True, **settings)
    assert not torch.equal(before["visual.proj"], after["visual.proj"])
    assert (folder / "out" / "notes.txt").read_text() == "mine"

    (folder / "base" / "notes.txt").write_text("of the base")  # would be copied
    message = raised(folder, overwrite=True, **settings)
    assert "output out has a file 'notes.txt' that no merge has written, and gets" in message

    save_sharded(folder / "mine", content=finetuned(3))
    (folder / "notes").mkdir()
    for own in ("notes/a.txt", "own.safetensors"):
        (folder / own).write_text("mine")
    for own, base in (("mine", "base"), ("notes", "base"), ("own.safetensors", "base.safetensors")):
        message = raised(folder, base=base, output=own, overwrite=True)
        assert re.search(f"output {own} is a (folder|file) that no merge has written", message)


def test_a_folder_that_holds_an_input_is_not_replaced(folder):
    save_sharded(folder / "base", content=pretrained())
    made(folder, "tsv_merge", "out/c.safetensors")
    tuned = {"c": "out/c.safetensors"}
    message = raised(folder, base="base", finetuned=tuned, output="out", overwrite=True)
    assert "output out holds the checkpoint of c, which it would replace" in message
