"""write=compressed: TSV-C as files, read back as fine-tuned checkpoints, and what they store."""

import json
import math

import pytest
import torch
from full_size import VISUAL, shapes
from made_up.merges import TASKS, finetuned, made, merge, pretrained, same, write_checkpoints
from made_up.state_dicts import save, save_sharded
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from stand_ins.commands import numbers, small, tsv

from tsv_bench.methods.matrixwise.decomposition import CompressedVector
from tsv_bench.models import load_mini
from tsv_bench.state_dicts.low_rank import KEY_LOW_RANK
from tsv_bench.state_dicts.open_vectors import open_task_vector
from tsv_bench.state_dicts.state_dict import open_state_dict
from tsv_bench.task_vectors.matrices import EMBEDDINGS_AND_HEADS, Matrices

FILES = {task: f"files/{task}.safetensors" for task in TASKS}
MATRICES = {"visual.proj", "blocks.0.in_proj_weight", "blocks.0.c_proj.weight", "text_projection"}
UNCHANGED = {"frozen", "steps", "position_ids"}


@pytest.fixture
def folder(tmp_path):
    write_checkpoints(tmp_path)
    return tmp_path


def compress(folder, **settings):
    return made(folder, "tsv_compress", "files", write="compressed", **settings)


def vectors(folder, method, output, tuned=None, **settings):
    return made(folder, method, output, tuned=tuned, write="vector", **settings)


def apart(found, expected):
    """|| found - expected || / || expected || of each parameter."""
    assert set(found) == set(expected)
    norms = {n: float((found[n].double() - t.double()).norm()) for n, t in expected.items()}
    return {n: d / (float(expected[n].double().norm()) or 1) for n, d in norms.items()}


# Rounding changes an entry of each of the three factors by 2^-9 or 2^-11 of itself. In float32 the
# factors are the same, and ten products are summed in another order.
APART = {"float32": 10 * 2.0**-24, "bfloat16": 3 * 2.0**-9, "float16": 3 * 2.0**-11}


@pytest.mark.parametrize("split_qkv", [False, True])
@pytest.mark.parametrize("precision", APART)
def test_read_back_it_is_the_vector_of_tsv_c(folder, precision, split_qkv):
    settings = {"knobs": {"split_qkv": split_qkv}, "precision": precision}
    written = compress(folder, **settings), vectors(folder, "tsv_compress", "dense", **settings)
    read = vectors(folder, "individual", "back", FILES)
    for stored, dense, back in zip(*written, read, strict=True):
        assert stored["visual.proj.u"].dtype == getattr(torch, precision)
        assert stored["visual.conv1.weight"].dtype == torch.float32
        lead = (3,) if split_qkv else ()
        assert stored["blocks.0.in_proj_weight.s"].shape == (*lead, 6)
        errors = apart(back, dense)
        assert max(errors[name] for name in MATRICES) <= APART[precision]
        assert all(error == 0 for name, error in errors.items() if name not in MATRICES)


def test_read_back_it_is_a_model_in_any_format_of_the_pretrained_one(folder):
    compress(folder)
    save_sharded(folder / "base", "bin", content=pretrained())
    models = made(folder, "individual", "models", tuned=FILES)
    folders = made(folder, "individual", "folders", base="base", tuned=FILES)
    for model, other in zip(models, folders, strict=True):
        same(model, other)
        same({n: model[n] for n in UNCHANGED}, {n: pretrained()[n] for n in UNCHANGED})
    # Layers that are no matrices are kept whole; a difference and a sum below 4 are rounded.
    bias = "blocks.0.in_proj_bias"
    torch.testing.assert_close(models[1][bias], finetuned(1)[bias], rtol=0, atol=2.0**-22)


def test_what_fine_tuning_left_alone_is_not_stored(folder):
    for stored, path in zip(compress(folder), FILES.values(), strict=True):
        factors = {f"{name}.{key}" for name in MATRICES for key in ("u", "s", "vh")}
        assert set(stored) == factors | set(pretrained()) - MATRICES - UNCHANGED
        with safe_open(folder / path, "pt") as file:
            contents, about = (
                json.loads(file.metadata()[key]) for key in (KEY_LOW_RANK, "tsv_bench")
            )
        assert set(contents["layers"]) == MATRICES and set(contents["unchanged"]) == UNCHANGED
        assert (about["write"], about["precision"]) == ("compressed", "float32")


@pytest.mark.parametrize("precision", APART)
def test_triplets_of_a_file_are_singular_ones_in_any_precision(folder, precision):
    """Rounded factors have columns that are neither orthogonal nor of length one."""
    compress(folder, precision=precision)
    base, file = (open_state_dict(folder / path) for path in ("base.safetensors", FILES["a"]))
    vector = open_task_vector(base, file)
    for name in MATRICES:
        found = vector.recall(name, 2, "gram")
        u, s, vh = torch.linalg.svd(vector[name].double())
        leading = u[:, :2] * s[:2] @ vh[:2]
        # The file's float32 products, about 1, are rounded to 2^-24, singular vectors a bit more.
        close = {"rtol": 0, "atol": 1e-5}
        torch.testing.assert_close((found[0] * found[1] @ found[2])[0].double(), leading, **close)
        torch.testing.assert_close(found[0][0].mT @ found[0][0], torch.eye(2), **close)


def test_tsv_m_of_compressed_files_is_that_of_the_originals_at_their_rank(folder):
    for split_qkv in (False, True):
        knobs = {"split_qkv": split_qkv, "exclude": []}  # text_projection is compressed too
        compress(folder, knobs=knobs, overwrite=True)
        for rank_fraction in (None, 0.25):
            settings = {"knobs": knobs | {"rank_fraction": rank_fraction}, "overwrite": True}
            [there] = vectors(folder, "tsv_merge", "there.safetensors", **settings)
            [back] = vectors(folder, "tsv_merge", "back.safetensors", FILES, **settings)
            assert max(apart(back, there).values()) < 1e-5


def test_compressed_files_are_compressed_further(folder):
    """The leading triplets at one rank are also those at a higher one."""
    compress(folder)
    knobs = {"rank_fraction": 0.25}
    made(folder, "tsv_compress", "again", tuned=FILES, write="compressed", knobs=knobs)
    again = {task: f"again/{task}.safetensors" for task in TASKS}
    back = vectors(folder, "individual", "back", again)
    straight = vectors(folder, "tsv_compress", "straight", knobs=knobs)
    for found, expected in zip(back, straight, strict=True):
        assert max(apart(found, expected).values()) < 1e-5


def test_a_compressed_layer_can_be_whole_again(folder):
    compress(folder)
    knobs = {"exclude": ["*proj*"]}
    made(folder, "tsv_compress", "whole", tuned=FILES, write="compressed", knobs=knobs)
    whole = {task: f"whole/{task}.safetensors" for task in TASKS}
    before, after = (
        vectors(folder, "individual", f"back{i}", tuned) for i, tuned in enumerate((FILES, whole))
    )
    for found, expected in zip(after, before, strict=True):
        # A tenth of a weight, which is rounded when it is whole: 2^-24 of values up to 4.
        assert max(apart(found, expected).values()) < 1e-5


@pytest.mark.parametrize(("method", "knobs"), [("ties", {"density": 0.3}), ("task_arithmetic", {})])
def test_entrywise_methods_take_the_reconstruction(folder, method, knobs):
    compress(folder)
    models = made(folder, "individual", "models", tuned=FILES)
    for task, model in zip(TASKS, models, strict=True):
        save(model, folder / f"dense-{task}.safetensors")
    dense = {task: f"dense-{task}.safetensors" for task in TASKS}
    [there] = vectors(folder, method, "there.safetensors", dense, knobs=knobs)
    [back] = vectors(folder, method, "back.safetensors", FILES, knobs=knobs)
    for name in there:  # writing them as models, below 4, rounds the two deltas to 2^-23
        torch.testing.assert_close(back[name], there[name], rtol=0, atol=2 * 2.0**-22)


ODD = {"pretrained": "", "layers": [[]], "unchanged": [], "split_qkv": True}
DAMAGES = {
    "a.safetensors was compressed against other pretrained weights. Give the pretrained": (
        lambda folder, path: save(pretrained(torch.float64), folder / "base.safetensors")
    ),
    "is not a whole safetensors file": lambda folder, path: path.write_bytes(
        path.read_bytes()[:-8]
    ),
    "a.safetensors lacks 'visual.proj.vh', which its metadata promise. Make it again": (
        lambda folder, path: rewrite(path, lambda tensors: tensors.pop("visual.proj.vh"))
    ),
    "holds NaN or infinity in 'visual.proj.s'": (
        lambda folder, path: rewrite(path, lambda tensors: tensors["visual.proj.s"].fill_(math.nan))
    ),
    "which do not make a layer of (": (
        lambda folder, path: rewrite(
            path, lambda t: t.update({next(k for k in t if k.endswith(".u")): torch.ones(3, 2)})
        )
    ),
    "is a compressed file whose metadata are damaged. Make it again": (
        lambda folder, path: rewrite(path, len, {KEY_LOW_RANK: '{"layers": []}'})
    ),
    "metadata are damaged. Make it": (
        lambda folder, path: rewrite(path, len, {KEY_LOW_RANK: "[" * 100_000})
    ),
    "whose metadata are damaged.": (
        lambda folder, path: rewrite(path, len, {KEY_LOW_RANK: json.dumps(ODD)})
    ),
}


def rewrite(path, change, metadata=None):
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        metadata = file.metadata() | (metadata or {})
    change(tensors)
    save_file(tensors, path, metadata)


@pytest.mark.parametrize("message", DAMAGES)
def test_files_that_cannot_be_used(folder, message):
    compress(folder)
    DAMAGES[message](folder, folder / FILES["a"])
    with pytest.raises(ValueError, match="^a: ") as refused:
        made(folder, "tsv_merge", "out.safetensors", tuned=FILES)
    assert message in str(refused.value)
    assert not (folder / "out.safetensors").exists()


STORED = {
    "vit_b32": {8: 0.190, 10: 0.157, 14: 0.119, 20: 0.092},
    "vit_b16": {8: 0.174, 10: 0.139, 14: 0.101, 20: 0.074},
    "vit_l14": {8: 0.169, 10: 0.136, 14: 0.098, 20: 0.069},
}


@pytest.mark.parametrize("backbone", STORED)
def test_share_of_the_image_tower_that_is_stored_for_each_task(backbone):
    tower = {name: s for name, s in shapes(backbone).items() if name.startswith(VISUAL)}
    vector = {name: torch.empty(shape, device="meta") for name, shape in tower.items()}
    matrices = Matrices(EMBEDDINGS_AND_HEADS)
    for num_tasks, share in STORED[backbone].items():
        compressed = CompressedVector(vector, num_tasks, matrices, None, "gram")
        stored = sum(
            sum(map(math.prod, compressed.factor_shapes(name) or [shape]))
            for name, shape in tower.items()
        )
        assert stored / sum(map(math.prod, tower.values())) == pytest.approx(share, abs=5.01e-4)


def test_the_table_says_what_is_stored(folder):
    save(pretrained(), folder / "b.safetensors")
    result = merge(folder, "files", "method=tsv_compress", "write=compressed")
    head, a, b, total = (line.split() for line in result.out.splitlines())
    assert head == "task rank stored of changed share MB of MB".split()
    stored = sum(t.numel() for t in load_file(folder / FILES["a"]).values())
    changed = sum(t.numel() for n, t in pretrained().items() if n not in UNCHANGED)
    numbers = [f"{stored:,}", f"{changed:,}", f"{stored / changed:.3f}"]
    assert a[:5] == ["a", "3-6", *numbers]
    assert b[:5] == ["b", "0", "0", "0", "-"]
    assert total[:4] == ["total", *numbers]
    assert "TSV-C of 2 tasks -> files (2 written" in result.err
    assert "b equals the pretrained checkpoint: it changes nothing." in result.err
    back = vectors(folder, "individual", "back", FILES)
    assert [any(t.any() for t in vector.values()) for vector in back] == [True, False]


def test_the_benchmark_reads_compressed_files(tmp_path):
    backbone = load_mini(
        name="mini", label="Mini", architecture="mini", weights="mini.safetensors", sha256=""
    )
    base = {name: tensor.contiguous() for name, tensor in backbone.pretrained.items()}
    save(base, tmp_path / "base.safetensors")
    (tmp_path / "dense").mkdir()
    tuned = {name: t + 0.02 * torch.randn(t.shape) for name, t in base.items()}
    save(tuned, tmp_path / "dense" / "signs.safetensors")
    half = ["method=tsv_compress", "method.rank_fraction=0.5"]
    merge(tmp_path, "files", *half, "write=compressed", tuned={"signs": "dense/signs.safetensors"})
    suite = ["suite.tasks=[signs]", *small("suite.tasks", ["signs"]), "checkpoints=folder"]
    individual = ["method=individual"]
    for place, method in (("dense", individual), ("dense", half), ("files", individual)):
        paths = [f"checkpoints.folder={place}", f"paths.runs={place}/runs"]
        result = tsv(tmp_path, "bench", *method, *suite, *paths)
        assert result.code == 0, result.err
    _, _, _, dense = numbers(tmp_path / "dense", "tsv_compress")
    _, _, _, files = numbers(tmp_path / "files", "individual")
    # The same weights, up to rounding: an image on the border of two classes may change sides.
    for split in dense:
        odd = sum(a != b for a, b in zip(dense[split], files[split], strict=True))
        assert odd <= 1 and 0 < sum(dense[split]) < len(dense[split])
