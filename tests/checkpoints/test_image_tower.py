"""An image tower is the same under every naming, and read only when it is asked for."""

import logging
from functools import cache

import pytest
import torch
from made_up import backbones
from made_up import tower_files as saved
from made_up.backbones import SMALL
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPVisionModel, CLIPVisionModelWithProjection

from tsv_bench.benchmark.evaluate import open_task_vectors
from tsv_bench.checkpoints.checkpoint import Checkpoint
from tsv_bench.checkpoints.image_tower import (
    ImageTower,
    image_tower,
    log_frozen_projection,
    naming_of,
)
from tsv_bench.models.clip import build_clip
from tsv_bench.state_dicts.state_dict import StateDict, open_state_dict

B32 = "ViT-B-32-quickgelu"
NAMINGS = ["visual", "open_clip", "paper", "hugging_face", "clip_model"]
IN_PROJ = "transformer.resblocks.1.attn.in_proj_weight"  # q, k and v: 96 x 32
QKV = [f"encoder.layers.1.self_attn.{part}_proj.weight" for part in "qkv"]


@cache
def shapes_of(architecture):
    """A backbone's tower whose names and shapes are used and whose values are not."""
    return build_clip(architecture).visual.state_dict()


def features(tower, architecture, images):
    visual = build_clip(architecture).visual
    visual.load_state_dict(dict(tower), assign=True)
    with torch.inference_mode():
        return visual.eval()(images)


def difference(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


def write(naming, folder, architecture, model, tower):
    if naming == "hugging_face":
        model.save_pretrained(folder)
        return folder / "model.safetensors"
    return saved.save(tower, naming, folder, architecture)


def test_full_size_tower_of_transformers_gives_its_features(tmp_path):
    """Measured: 6e-7 apart; 2e-3 with q and k exchanged, 3e-3 with plain GELU."""
    model, images = saved.hugging_face(B32), torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        expected = model(images).image_embeds
    path = write("hugging_face", tmp_path, B32, model, None)
    del model
    state = open_state_dict(path)
    assert naming_of(state, shapes_of(B32)) == "hugging_face"
    found = features(image_tower(state, shapes_of(B32)), B32, images)
    path.unlink()  # 350 MB that pytest would keep
    assert expected.shape == (2, 512) and expected.std() > 0.1
    assert difference(found, expected) < 1e-5


@pytest.mark.parametrize("naming", [naming for naming in NAMINGS if naming != "hugging_face"])
def test_full_size_tower_has_every_tensor_in_every_naming(naming, tmp_path):
    """Each tensor is its own number, of which a torch file keeps one."""
    shapes = shapes_of(B32)
    tower = {
        name: torch.tensor(float(i)).expand(shapes[name].shape) for i, name in enumerate(shapes)
    }
    path = tmp_path / "tower.pt"
    if naming == "visual":
        torch.save(tower, path)
    else:
        path = saved.save(tower, naming, tmp_path, B32)
    state = open_state_dict(path)
    assert naming_of(state, shapes) == naming
    found = image_tower(state, shapes)
    assert {name: found.shape(name) for name in found} == {n: t.shape for n, t in shapes.items()}
    assert [found.rows(name, 0, 1).max().item() for name in shapes] == list(range(len(shapes)))


@pytest.fixture(scope="module")
def small():
    """A small tower of transformers, and the same under our names, those of open_clip."""
    model = saved.hugging_face(SMALL)
    return model, backbones.clip().visual.state_dict()


@pytest.fixture(params=NAMINGS)
def opened(request, small, tmp_path):
    """A small tower opened under each naming, all of its tensors, and the file's own state."""
    model, tower = small
    path = write(request.param, tmp_path, SMALL, model, tower)
    state = open_state_dict(path)
    found = image_tower(state, shapes_of(SMALL))
    return found, {name: found[name] for name in found}, state


@pytest.mark.parametrize("kind", [CLIPVisionModelWithProjection, CLIPModel])
@pytest.mark.parametrize("shards", [False, True])
def test_models_of_transformers_give_their_features(kind, shards, tmp_path):
    model, images = saved.hugging_face(SMALL, kind), torch.randn(3, 3, 32, 32)
    model.save_pretrained(tmp_path, max_shard_size="10KB" if shards else "1GB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 4 or not shards
    tower = image_tower(open_state_dict(tmp_path), shapes_of(SMALL))
    with torch.inference_mode():
        pooled = model.vision_model(images).pooler_output
        expected = model.visual_projection(pooled)
    assert difference(features(tower, SMALL, images), expected) < 1e-5
    in_shards = [name for names in tower.shards.values() for name in names]
    assert sorted(in_shards) == sorted(tower) == sorted(shapes_of(SMALL))


@pytest.mark.parametrize("older", [False, True])
def test_projection_that_was_frozen_is_the_pretrained_one(older, tmp_path, caplog):
    """FusionBench's checkpoints: CLIPVisionModel, by the transformers of 2024 or of today."""
    log_frozen_projection.cache_clear()
    model, images = saved.hugging_face(SMALL, CLIPVisionModel), torch.randn(3, 3, 32, 32)
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    if older:
        state = {name.removeprefix("vision_model."): t for name, t in load_file(path).items()}
        state["embeddings.position_ids"] = torch.arange(17)[None]
        save_file({f"vision_model.{name}": t for name, t in state.items()}, path)
    backbone = backbones.load(backbones.save(backbones.clip(), tmp_path / "clip"))
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            tower = image_tower(open_state_dict(path), backbone.pretrained)
    assert caplog.text.count("without visual_projection.weight: it was frozen") == 1

    with torch.inference_mode():
        expected = model(images).pooler_output @ backbone.pretrained["proj"]
    assert difference(features(tower, SMALL, images), expected) < 1e-5
    assert torch.equal(tower.rows("proj", 3, 9), backbone.pretrained["proj"][3:9])
    assert tower["proj"].data_ptr() != backbone.pretrained["proj"].data_ptr()  # may be changed
    vector = open_task_vectors(backbone, {"a": checkpoint(path)})["a"]
    assert not vector["proj"].any() and vector["conv1.weight"].any()


def checkpoint(path):
    return Checkpoint(path=path, sha256="", generation="other", scores=None)


def test_task_vectors_are_those_of_our_own_naming(small, tmp_path):
    _, tower = small
    backbone = backbones.load(backbones.save(backbones.clip(seed=5), tmp_path / "clip"))
    checkpoints = {
        naming: checkpoint(saved.save(tower, naming, tmp_path, SMALL)) for naming in NAMINGS[:3]
    }
    vectors = open_task_vectors(backbone, checkpoints)
    for name, base in backbone.pretrained.items():
        for naming, vector in vectors.items():
            assert torch.equal(vector[name], tower[name] - base), (naming, name)


def test_rows_are_those_of_the_whole(opened):
    found, whole, _ = opened
    for name, tensor in whole.items():
        assert found.shape(name) == tensor.shape and found.dtype(name) == tensor.dtype
        assert tensor.is_contiguous()
        end = len(tensor)
        # In an in_proj, q ends at a third and k at two thirds.
        marks = [0, 1, end // 3 - 1, end // 3, end // 3 + 1, 2 * end // 3, end - 1, end, end + 5]
        for start in marks:
            for stop in marks:
                rows = found.rows(name, start, stop)
                assert rows.shape == tensor[start:stop].shape, (name, start, stop)
                assert torch.equal(rows, tensor[start:stop]), (name, start, stop)


def test_parts_of_a_projection_are_joined_in_the_order_of_open_clip(small, tmp_path):
    model, _ = small
    model.save_pretrained(tmp_path)
    file = load_file(tmp_path / "model.safetensors")
    tower = image_tower(open_state_dict(tmp_path), shapes_of(SMALL))
    parts = [next(tensor for n, tensor in file.items() if n.endswith(part)) for part in QKV]
    assert torch.equal(tower[IN_PROJ], torch.cat(parts))
    assert torch.equal(tower["proj"], file["visual_projection.weight"].T)


def test_a_tower_is_a_mapping_like_a_state_dict(opened):
    found, whole, state = opened
    assert isinstance(found, ImageTower) or found is state
    assert list(found) == list(whole) and set(found) == set(shapes_of(SMALL))
    assert len(found) == len(whole) and "conv1.weight" in found and "nothing" not in found
    assert found.path == state.path and found.files == state.files
    with pytest.raises(KeyError):
        found["nothing"]


def test_nothing_is_read_at_opening_and_then_only_what_is_asked_for(opened, monkeypatch):
    _, whole, state = opened
    read = []
    rows = StateDict.rows

    def recorded(self, name, start, stop):
        found = rows(self, name, start, stop)
        read.append(found.numel())
        return found

    monkeypatch.setattr(StateDict, "rows", recorded)
    found = image_tower(state, shapes_of(SMALL))
    assert not read
    part = found.rows(IN_PROJ, 30, 34)  # the end of q and the beginning of k
    assert sum(read) == part.numel() == 4 * 32
    read.clear()
    assert sum(found[name].numel() for name in whole) == sum(read)


def test_parts_of_different_precision_are_read_as_the_finer(small, tmp_path):
    model, _ = small
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    file = load_file(path)
    key = next(name for name in file if name.endswith(QKV[1]))
    file |= {name: tensor.half() for name, tensor in file.items() if name != key}
    save_file(file, path)
    tower = image_tower(open_state_dict(path), shapes_of(SMALL))
    assert tower.dtype(IN_PROJ) == tower[IN_PROJ].dtype == torch.float32
    assert tower.dtype("conv1.weight") == tower["conv1.weight"].dtype == torch.float16


@pytest.mark.parametrize("naming", ["visual", "open_clip"])
def test_names_from_wrapped_modules_are_read_without_the_wrappers(naming, small, tmp_path):
    model, tower = small
    plain = dict(open_state_dict(write(naming, tmp_path, SMALL, model, tower)))
    path = tmp_path / "wrapped.safetensors"
    save_file({f"module._orig_mod.{name}": tensor for name, tensor in plain.items()}, path)
    found = image_tower(open_state_dict(path), tower)
    assert list(found) and all(torch.equal(found[name], tower[name]) for name in tower)
    assert [n for names in found.shards.values() for n in names]


def test_parts_in_float8_are_read_as_they_are(small, tmp_path):
    state = load_file(write("hugging_face", tmp_path, SMALL, *small))
    eight = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in state.items()}
    save_file(eight, tmp_path / "eight.safetensors")
    found = image_tower(open_state_dict(tmp_path / "eight.safetensors"), shapes_of(SMALL))
    assert found.dtype(IN_PROJ) == found[IN_PROJ].dtype == torch.float8_e4m3fn
    parts = [eight[next(name for name in eight if name.endswith(part))].float() for part in QKV]
    assert torch.equal(found[IN_PROJ].float(), torch.cat(parts))


def test_compressed_files_are_left_to_their_own_reader(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"conv1.weight": torch.zeros(1)}, path, {"tsv_bench.compressed": "{}"})
    state = open_state_dict(path)
    assert naming_of(state, shapes_of(SMALL)) == "compressed"
    assert image_tower(state, shapes_of(SMALL)) is state


@pytest.mark.parametrize("naming", NAMINGS)
def test_not_a_number_is_named_as_the_backbone_names_it(naming, small, tmp_path):
    model, tower = small
    path = write(naming, tmp_path, SMALL, model, tower)
    state = {name: tensor.clone() for name, tensor in open_state_dict(path).items()}
    name = next(n for n in state if n.endswith(QKV[2]) or n.endswith(IN_PROJ))
    state[name][-1, -1] = torch.nan
    if naming != "visual":  # beside the tower it does no harm
        state["logit_scale" if naming != "paper" else "model.logit_scale"] = torch.tensor(torch.nan)
    save_file(state, tmp_path / "nan.safetensors")
    backbone = backbones.load(backbones.save(backbones.clip(), tmp_path / "clip"))
    with pytest.raises(ValueError, match=f"checkpoint of a at .*NaN or infinity in '{IN_PROJ}'"):
        open_task_vectors(backbone, {"a": checkpoint(tmp_path / "nan.safetensors")})
