"""Zero-shot heads: what they are made of, and where they are kept."""

import logging
from contextlib import contextmanager

import made_up.backbones
import made_up.tasks
import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from made_up.backbones import load
from stand_ins.disk import read_only

from tsv_bench.models import head, zero_shot_head, zero_shot_heads

TEMPLATES = ["a photo of a {}.", "a {}, seen from very far away.", "{}"]


@pytest.fixture(autouse=True)
def built(monkeypatch):
    """Forget all heads, and record the names of tasks whose heads are built."""
    names, build = [], head.build_head
    monkeypatch.setattr(head, "_built", {})
    monkeypatch.setattr(
        head, "build_head", lambda backbone, task: names.append(task.name) or build(backbone, task)
    )
    return names


@pytest.fixture
def clip():
    return made_up.backbones.clip()


@pytest.fixture
def backbone(clip, tmp_path):
    return load(made_up.backbones.save(clip, tmp_path / "clip"))


def tasks(*names, **settings):
    return {name: made_up.tasks.task(name, **settings) for name in names}


def forget():
    """Forget the heads in memory, as another process has none."""
    head._built.clear()


def test_head_is_the_normalized_mean_of_normalized_prompts_scaled():
    backbone, task = made_up.tasks.backbone(), made_up.tasks.task()
    found = zero_shot_head(backbone, task)
    assert found.shape == (3, made_up.tasks.DIM) and not found.requires_grad
    for name, row in zip(task.class_names, found.double().numpy(), strict=True):
        texts = backbone.encode_text([f"a {name} tint", name]).double().numpy()
        mean = sum(text / np.linalg.norm(text) for text in texts) / 2
        np.testing.assert_allclose(row, 10 * mean / np.linalg.norm(mean), rtol=1e-5, atol=1e-5)
        assert np.linalg.norm(row) == pytest.approx(backbone.logit_scale, rel=1e-6)


def test_head_is_built_once_for_the_same_prompts_and_backbone(built):
    backbone = made_up.tasks.backbone()
    first = zero_shot_head(backbone, made_up.tasks.task())
    assert zero_shot_head(made_up.tasks.backbone(), made_up.tasks.task()) is first
    zero_shot_head(backbone, made_up.tasks.task(templates=["the {}"]))
    zero_shot_head(made_up.tasks.backbone("another"), made_up.tasks.task())
    assert len(built) == 3


def test_heads_of_a_clip_are_those_that_open_clip_computes(clip, backbone):
    """Each class by itself, in double precision from open_clip's own features on."""
    made = made_up.tasks.task(templates=TEMPLATES)
    found = zero_shot_heads(backbone, {"tints": made})["tints"]
    tokenizer = open_clip.get_tokenizer(made_up.backbones.SMALL)
    for row, name in zip(found, ["red", "green", "blue"], strict=True):
        texts = clip.encode_text(tokenizer([template.format(name) for template in TEMPLATES]))
        mean = F.normalize(texts.double(), dim=-1).mean(dim=0)
        expected = clip.logit_scale.double().exp() * F.normalize(mean, dim=-1)
        # float32 features; the head is scaled by e^4 = 55.
        torch.testing.assert_close(row.double(), expected, rtol=1e-5, atol=1e-4)


def test_text_tower_is_read_once_for_all_heads_and_released(backbone, monkeypatch):
    tower = backbone.encode_text.__self__
    read, read_tower = [], tower._load
    monkeypatch.setattr(tower, "_load", lambda: read.append(1) or read_tower())
    zero_shot_heads(backbone, {**tasks("one", "two"), **tasks("three", templates=TEMPLATES)})
    assert len(read) == 1 and tower._clip is None


def test_text_tower_is_released_after_a_failure(backbone, monkeypatch):
    def fail(backbone, task):
        backbone.encode_text(["a prompt"])
        assert backbone.encode_text.__self__._clip is not None
        raise RuntimeError("out of memory")

    monkeypatch.setattr(head, "build_head", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        zero_shot_head(backbone, made_up.tasks.task())
    assert backbone.encode_text.__self__._clip is None


def test_heads_on_disk_are_read_and_not_built_again(backbone, tmp_path, built, monkeypatch):
    folder = tmp_path / "heads"
    first = zero_shot_heads(backbone, tasks("one", "two", epochs=3), folder)
    assert len(list((folder / "small").glob("*.safetensors"))) == 2
    forget()
    monkeypatch.setattr(backbone.encode_text.__self__, "_load", lambda: pytest.fail("read"))
    again = zero_shot_heads(backbone, tasks("one", "two", epochs=4), folder)
    assert built == ["one"]  # the same prompts: the second head was the first
    for name, found in first.items():
        assert torch.equal(again[name], found) and again[name] is not found


def test_a_head_that_another_process_has_built_meanwhile_is_read(
    backbone, tmp_path, built, monkeypatch
):
    made = zero_shot_head(backbone, made_up.tasks.task(), tmp_path / "heads")
    (path,) = (tmp_path / "heads" / "small").glob("*.safetensors")
    content = path.read_bytes()
    path.unlink()
    forget()

    @contextmanager
    def leased(wanted):
        wanted.write_bytes(content)
        yield

    monkeypatch.setattr(head, "leased", leased)
    assert torch.equal(zero_shot_head(backbone, made_up.tasks.task(), tmp_path / "heads"), made)
    assert built == ["tints"]


def test_head_in_memory_is_written_to_a_folder_that_lacks_it(backbone, tmp_path, built):
    head = zero_shot_head(backbone, made_up.tasks.task())
    assert zero_shot_head(backbone, made_up.tasks.task(), tmp_path / "heads") is head
    forget()
    assert torch.equal(zero_shot_head(backbone, made_up.tasks.task(), tmp_path / "heads"), head)
    assert built == ["tints"]


def test_other_prompts_or_weights_of_either_tower_are_other_files(clip, tmp_path, built):
    folder = tmp_path / "heads"
    variants = {
        "one": {},
        "image": {"visual__proj": clip.visual.proj + 1e-6},
        "text": {"text_projection": clip.text_projection + 1e-6},
        "scale": {"logit_scale": clip.logit_scale + 1e-6},
    }
    backbones = [
        load(made_up.backbones.save(clip, tmp_path / name, **changes))
        for name, changes in variants.items()
    ]
    made = [made_up.tasks.task(), made_up.tasks.task(templates=["{}"])]
    made.append(made_up.tasks.task(class_names=["green", "red", "blue"]))
    for _ in range(2):  # the second time all are there
        for one in made:
            for backbone in backbones:
                forget()
                zero_shot_head(backbone, one, folder)
        assert len(list((folder / "small").glob("*.safetensors"))) == 12
    assert len(built) == 12


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip, empty])
def test_damaged_head_is_built_again_with_a_warning(backbone, tmp_path, built, caplog, damage):
    head = zero_shot_head(backbone, made_up.tasks.task(), tmp_path / "heads")
    (path,) = (tmp_path / "heads" / "small").glob("*.safetensors")
    damage(path)
    for warnings in (1, 0):  # the second time it is whole
        forget()
        with caplog.at_level(logging.WARNING):
            found = zero_shot_head(backbone, made_up.tasks.task(), tmp_path / "heads")
        assert torch.equal(found, head)
        assert len(caplog.records) == warnings
        assert all(f"{path} is damaged" in record.message for record in caplog.records)
        caplog.clear()
    assert built == ["tints", "tints"]
    left = [p.name for p in path.parent.iterdir() if ".lease-" not in p.name]
    assert left == [path.name]  # no temporary file


def test_heads_in_a_folder_that_may_only_be_read(backbone, tmp_path, built, caplog, monkeypatch):
    folder = tmp_path / "heads"
    zero_shot_heads(backbone, tasks("one"), folder)
    read_only(monkeypatch, folder)
    forget()
    zero_shot_heads(backbone, tasks("one"), folder)
    assert built == ["one"] and not caplog.text
    two = tasks("two", templates=TEMPLATES)
    zero_shot_heads(backbone, two, folder)
    assert built == ["one", "two"] and "the head of two is not kept for the next" in caplog.text


def test_a_damaged_head_that_may_only_be_read(backbone, tmp_path, built, caplog, monkeypatch):
    head = zero_shot_head(backbone, made_up.tasks.task(), tmp_path / "heads")
    (path,) = (tmp_path / "heads" / "small").glob("*.safetensors")
    cut(path)
    read_only(monkeypatch, tmp_path / "heads")
    forget()
    assert torch.equal(zero_shot_head(backbone, made_up.tasks.task(), tmp_path / "heads"), head)
    assert f"{path} is damaged" in caplog.text
