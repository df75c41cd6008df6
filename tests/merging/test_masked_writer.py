"""write=compressed of masked methods: bit masks and a shared vector, read back as checkpoints."""

import json

import pytest
import torch
from made_up.merges import TASKS, finetuned, made, merge, pretrained, same, write_checkpoints
from made_up.state_dicts import save, save_sharded
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from stand_ins.commands import tsv

from tsv_bench.state_dicts.masked import KEY_MASKED

FILES = {task: f"files/{task}.safetensors" for task in TASKS}
CHANGED = {
    "visual.conv1.weight", "visual.proj", "blocks.0.in_proj_weight", "blocks.0.in_proj_bias",
    "blocks.0.c_proj.weight", "text_projection", "logit_scale",
}  # fmt: skip
KNOBS = {
    "tall_mask_ta": {"mask_lambda": 0.4},
    "tall_mask_ties": {"mask_lambda": 0.4, "density": 0.5},
    "magnitude_mask": {"density": 0.3},
    "emr": {},
}
every = pytest.mark.parametrize("method", KNOBS)


@pytest.fixture
def folder(tmp_path):
    write_checkpoints(tmp_path)
    return tmp_path


def compress(folder, method="tall_mask_ta", output="files", **settings):
    return made(folder, method, output, write="compressed", knobs=KNOBS[method], **settings)


def read_back(folder, **settings):
    return made(folder, "individual", "back", tuned=FILES, write="vector", **settings)


@every
def test_read_back_it_is_what_the_masks_serve(folder, method):
    compress(folder, method)
    dense = made(folder, method, "dense", write="vector", knobs=KNOBS[method])
    for found, expected in zip(read_back(folder), dense, strict=True):
        assert any(t.any() for t in found.values())
        same(found, expected)


@every
def test_models_are_pretrained_plus_that(folder, method):
    """All tasks are written in one pass; integer buffers are the pretrained ones."""
    vectors = made(folder, method, "vectors", write="vector", knobs=KNOBS[method])
    models = made(folder, method, "models", knobs=KNOBS[method], alpha=0.5)
    base = pretrained()
    for model, vector in zip(models, vectors, strict=True):
        same(model, {n: t.add(vector[n], alpha=0.5) if n in vector else t for n, t in base.items()})


def test_a_mask_is_a_bit_an_entry_and_what_is_shared_lies_there_once(folder):
    *masks, shared = compress(folder)
    assert set(shared) == CHANGED
    for mask in masks:
        assert {n: (t.dtype, tuple(t.shape)) for n, t in mask.items()} == {
            n: (torch.uint8, (-(-t.numel() // 8),)) for n, t in shared.items()
        }
    base, *tuned = (state["visual.proj"] for state in (pretrained(), finetuned(0), finetuned(1)))
    total = sum(tuned) - 2 * base
    torch.testing.assert_close(shared["visual.proj"], total, rtol=0, atol=1e-5)


def test_read_from_any_format_of_the_pretrained_one_and_merged_again(folder):
    compress(folder)
    save_sharded(folder / "base", "bin", content=pretrained())
    models = made(folder, "individual", "models", tuned=FILES)
    folders = made(folder, "individual", "folders", base="base", tuned=FILES)
    for model, other in zip(models, folders, strict=True):
        same(model, other)
    [found] = made(folder, "task_arithmetic", "sum.safetensors", tuned=FILES, write="vector")
    first, second = read_back(folder)
    same(found, {name: first[name] + second[name] for name in first})


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_the_shared_vector_may_be_narrow(folder, precision):
    *_, shared = compress(folder, precision=precision)
    assert {t.dtype for t in shared.values()} == {getattr(torch, precision)}
    wide = made(folder, "tall_mask_ta", "w", write="vector", knobs=KNOBS["tall_mask_ta"])
    for found, expected in zip(read_back(folder), wide, strict=True):
        for name, tensor in expected.items():
            narrow = tensor.to(getattr(torch, precision)).float()
            torch.testing.assert_close(found[name], narrow, rtol=0, atol=0)


def test_the_table_says_what_is_kept(folder):
    result = merge(folder, "files", "method=tall_mask_ta", "write=compressed")
    assert "mask_lambda=0.4 for every task: tsv-bench chooses it by task on vali" in result.err
    head, a, b, shared = (line.split() for line in result.out.splitlines())
    assert head == "task kept of entries share MB".split() and (a[0], b[0]) == TASKS
    dense = made(folder, "tall_mask_ta", "dense", write="vector", knobs=KNOBS["tall_mask_ta"])
    for row, vector in zip((a, b), dense, strict=True):
        kept = sum(int(t.count_nonzero()) for t in vector.values())
        entries = sum(t.numel() for name, t in vector.items() if name in CHANGED)
        assert row[1:4] == [f"{kept:,}", f"{entries:,}", f"{kept / entries:.3f}"]
    assert "TALL mask TA of 2 tasks -> files (3 written" in result.err


def rewrite(path, change=len, metadata=None):
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        metadata = file.metadata() | (metadata or {})
    change(tensors)
    save_file(tensors, path, metadata)


def other_merge(folder, path):
    made(folder, "emr", "others", write="compressed")
    (folder / "others" / "shared.safetensors").rename(path.with_name("shared.safetensors"))


DAMAGES = {
    "a.safetensors are not of the merged vector in": other_merge,
    "were made on other pretrained weights. Give the pretrained checkpoint": (
        lambda folder, path: save(pretrained(torch.float64), folder / "base.safetensors")
    ),
    "the merged vector that the masks in": (
        lambda folder, path: path.with_name("shared.safetensors").unlink()
    ),
    "lacks the mask of 'visual.proj', or holds one of another size": (
        lambda folder, path: rewrite(path, lambda tensors: tensors.pop("visual.proj"))
    ),
    "a.safetensors is a file of masks whose metadata are damaged": (
        lambda folder, path: rewrite(path, metadata={KEY_MASKED: json.dumps({"scale": 1})})
    ),
    "file of masks whose metadata are damaged": (
        lambda folder, path: rewrite(path, metadata={KEY_MASKED: "[" * 100_000})
    ),
    "masks whose metadata are damaged": (
        lambda folder, path: rewrite(
            path, metadata={KEY_MASKED: '{"pretrained": "", "merge": "", "scale": 1e300}'}
        )
    ),
    "holds NaN or infinity in 'visual.proj'": (
        lambda folder, path: rewrite(
            path.with_name("shared.safetensors"), lambda t: t["visual.proj"].fill_(torch.nan)
        )
    ),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_files_that_do_not_belong_together_are_refused(folder, message):
    compress(folder)
    DAMAGES[message](folder, folder / FILES["a"])
    with pytest.raises((ValueError, OSError), match="^a: ") as refused:
        made(folder, "tsv_merge", "out.safetensors", tuned=FILES)
    assert message in str(refused.value)
    assert not (folder / "out.safetensors").exists()


def test_the_shared_vector_is_no_task(folder):
    compress(folder)
    tuned = FILES | {"b": "files/shared.safetensors"}
    with pytest.raises(ValueError, match="b: .*is the vector that the masks beside it are of"):
        made(folder, "tsv_merge", "out.safetensors", tuned=tuned)


def test_no_task_may_be_called_shared(folder):
    with pytest.raises(ValueError, match="name 'shared' is that of the file"):
        compress(folder, tuned={"a": "a.safetensors", "shared": "b.safetensors"})


def test_nothing_is_replaced_unasked(folder):
    compress(folder)
    before = {p: p.read_bytes() for p in (folder / "files").iterdir()}
    (folder / FILES["a"]).unlink()
    (folder / FILES["b"]).unlink()
    with pytest.raises(ValueError, match="shared.safetensors is there already"):
        compress(folder)
    compress(folder, overwrite=True)
    assert {p: p.read_bytes() for p in (folder / "files").iterdir()} == before


def test_one_task_alone(folder):
    compress(folder, tuned={"a": "a.safetensors"})
    [back] = made(folder, "individual", "back", tuned={"a": FILES["a"]}, write="vector")
    same(back, made(folder, "individual", "own", tuned={"a": "a.safetensors"}, write="vector")[0])
    assert set(load_file(folder / FILES["a"])) == CHANGED


def test_methods_without_masks_or_factors_are_told(folder):
    result = tsv(
        folder, "merge", "method=ties", "write=compressed", "pretrained=base.safetensors",
        "finetuned={a: a.safetensors}", "output=x",
    )  # fmt: skip
    assert result.code == 1
    assert "this method has neither. Choose method=tsv_compress, a method of masks" in result.err
