"""Released checkpoints: each source spells backbones and tasks its own way."""

import dataclasses
import logging
from pathlib import Path

import made_up.tasks
import pytest
import torch
from hydra.utils import instantiate
from made_up import backbones
from made_up import tower_files as saved
from made_up.pickles import Head, pickle_as
from omegaconf import OmegaConf
from stand_ins.loopback_hub import LoopbackHub
from transformers import CLIPVisionModel

from tsv_bench import files, hub
from tsv_bench.benchmark.evaluate import open_task_vectors
from tsv_bench.checkpoints import released
from tsv_bench.checkpoints.image_tower import naming_of
from tsv_bench.checkpoints.released import TASKS, Reference
from tsv_bench.cli.config.tasks import named_tasks
from tsv_bench.files import sha256
from tsv_bench.state_dicts.state_dict import open_state_dict

CONF = Path(__file__).resolve().parents[2] / "conf" / "checkpoints"
OTHERS = ["tall_masks", "fusion_bench", "crisostomi"]
# Repository, file and generation, as the publishers have them.
SPELLED = {
    ("tall_masks", "vit_b32", "cars"): (
        "nik-dim/tall_masks", "single_task/ViT-B-32/CarsVal/nonlinear_finetuned.pt", "fixed"
    ),
    ("tall_masks", "vit_b16", "rendered_sst2"): (
        "nik-dim/tall_masks", "single_task/VIT-B-16/RenderedSST2Val/nonlinear_finetuned.pt", "fixed"
    ),
    ("tall_masks", "vit_l14", "oxford_iiit_pet"): (
        "nik-dim/tall_masks", "single_task/ViT-L-14/OxfordIIITPetVal/nonlinear_finetuned.pt",
        "fixed",
    ),
    ("fusion_bench", "vit_b32", "cars"): (
        "tanganke/clip-vit-base-patch32_stanford-cars", "model.safetensors", "other"
    ),
    ("fusion_bench", "vit_b16", "oxford_iiit_pet"): (
        "tanganke/clip-vit-base-patch16_oxford-iiit-pet", "model.safetensors", "other"
    ),
    ("fusion_bench", "vit_l14", "flowers102"): (
        "tanganke/clip-vit-large-patch14_oxford_flowers102", "model.safetensors", "other"
    ),
    ("crisostomi", "vit_b32", "rendered_sst2"): (
        "crisostomi/ViT-B-32-RenderedSST2", "pytorch_model.bin", "other"
    ),
    ("crisostomi", "vit_l14", "dtd"): ("crisostomi/ViT-L-14-DTD", "pytorch_model.bin", "other"),
    ("fillo_rinaldi", "vit_b32", "kmnist"): (
        "fillo-rinaldi/ViT-B-32-openai", "KMNIST/full_best_ep.pt", "other"
    ),
    ("fillo_rinaldi", "vit_l14_datacomp", "cars"): (
        "fillo-rinaldi/ViT-L-14-datacomp_xl_s13b_b90k", "Cars/full_best_ep.pt", "other"
    ),
    ("merge_and_rebase", "vit_b32", "sun397"): (
        "merge-and-rebase/vision8-checkpoints", "finetune/ViT-B-32/openai/SUN397/full.pt", "other"
    ),
}  # fmt: skip


def source_of(name, **changes):
    """Make the source of its yaml, as a command does."""
    return instantiate(OmegaConf.merge(OmegaConf.load(CONF / f"{name}.yaml"), changes))


def task(name="cars", **changes):
    return made_up.tasks.task(name, **changes)


@pytest.fixture(scope="module")
def tuned():
    return backbones.clip(seed=3).visual.state_dict()


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """Return a small backbone under the name of one of the paper's."""
    path = backbones.save(backbones.clip(), tmp_path_factory.mktemp("clip") / "clip")
    return dataclasses.replace(backbones.load(path), name="vit_b16", label="ViT-B/16")


@pytest.fixture
def said(caplog):
    """Return a function that returns the warnings since the test began."""
    released._say.cache_clear()
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records]


def write(tower, layout, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return saved.save(tower, layout, path.parent, backbones.SMALL).rename(path)


@pytest.mark.parametrize(("source", "backbone", "name"), SPELLED)
def test_repositories_spell_backbones_and_tasks_their_own_way(source, backbone, name):
    repo, file, generation = SPELLED[source, backbone, name]
    made = source_of(source)
    (need,) = made.needs(backbone, task(name))
    assert (need.repo, need.patterns, need.kind) == (repo, (file,), "model")
    assert need.what == f"checkpoint of {name}" and need.num_bytes > 3e8
    assert made.generation == generation
    with pytest.raises(OSError, match=f"checkpoint of {name} .{repo}. is not here.*tsv-fetch"):
        made.path(backbone, task(name))


@pytest.mark.parametrize("source", OTHERS)
def test_all_twenty_tasks_of_the_paper_have_a_checkpoint_of_each_backbone(source):
    assert list(TASKS) == named_tasks("vision20")
    made, found = source_of(source), set()
    for backbone in ("vit_b32", "vit_b16", "vit_l14"):
        for name in TASKS:
            (need,) = made.needs(backbone, task(name))
            found.add((need.repo, need.patterns))
    assert len(found) == 60
    assert set(made.remarks) <= set(TASKS)


@pytest.mark.parametrize("source", [*OTHERS, "reference"])
def test_a_task_or_backbone_that_they_do_not_have(source, tmp_path):
    made = source_of(source, **({"folder": str(tmp_path)} if source == "reference" else {}))
    with pytest.raises(ValueError, match="no checkpoints of backbone 'mini'; .*vit_b32, vit_b16, "):
        made.path("mini", task())
    with pytest.raises(ValueError, match="of task 'tints'; .* cars, dtd.*task=, or other checkp"):
        made.path("vit_b32", task("tints"))


def test_a_repository_of_the_hub_is_fetched_and_used(backbone, tuned, tmp_path, monkeypatch, said):
    path = write(tuned, "paper", tmp_path / "made" / "cars.pt")
    source, cars = source_of("tall_masks"), task()
    with LoopbackHub(tmp_path / "hub") as loopback:
        name = "single_task/VIT-B-16/CarsVal/nonlinear_finetuned.pt"
        dtd = "single_task/VIT-B-16/DTDVal/nonlinear_finetuned.pt"
        loopback.add("model", "nik-dim/tall_masks", {name: path.read_bytes(), dtd: ""})
        loopback.use(monkeypatch, tmp_path / "home")
        (need,) = source.needs("vit_b16", cars)
        hub.fetch(need, progress=False)
        assert [asked for asked, _ in loopback.contents()] == [name]
    assert not said()

    # In the cache a file's name is its hash, so nothing is read to hash it.
    monkeypatch.setattr(files.content, "sha256", lambda path: pytest.fail("read"))
    found = source.checkpoint(backbone, cars, pytest.fail)
    assert found.sha256 == sha256(path)
    assert (found.generation, found.scores) == ("fixed", None)
    assert found.path.name == "nonlinear_finetuned.pt"
    assert source.settings(backbone, cars) == {
        "backbone": backbone.fingerprint, "sha256": sha256(path), "generation": "fixed",
    }  # fmt: skip
    assert source.needed(backbone, [cars]) == 0 and source.head(backbone, cars) is None
    vector = open_task_vectors(backbone, {"cars": found})["cars"]
    assert torch.equal(vector["proj"], tuned["proj"] - backbone.pretrained["proj"])
    with pytest.raises(OSError, match="checkpoint of dtd .* is not here"):
        source.checkpoint(backbone, task("dtd"), pytest.fail)


@pytest.mark.parametrize("source", OTHERS)
def test_a_local_copy_of_a_repository_needs_no_hub(source, backbone, tuned, tmp_path, said):
    made = source_of(source)
    copy = source_of(source, repo=str(tmp_path / made.repo))
    cars, fer = task(), task("fer2013")
    with pytest.raises(FileNotFoundError, match=f"no checkpoint of vit_b16 on cars at {tmp_path}"):
        copy.path("vit_b16", cars)
    for one in (cars, fer):
        (need,) = made.needs("vit_b16", one)
        path = tmp_path / need.repo / need.patterns[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        if source == "fusion_bench":
            saved.hugging_face(backbones.SMALL, CLIPVisionModel).save_pretrained(path.parent)
        else:
            write(tuned, "paper", path)
        assert copy.needs("vit_b16", one) == [] and copy.path("vit_b16", one) == path

    found = [copy.checkpoint(backbone, one, pytest.fail) for one in (cars, fer, cars, fer)]
    expected = "hugging_face" if source == "fusion_bench" else "paper"
    layouts = {naming_of(open_state_dict(one.path), backbone.pretrained) for one in found}
    assert layouts == {expected}
    about, remark = said()  # each once
    assert about == copy.about and remark == f"fer2013: {copy.remarks['fer2013']}"


@pytest.fixture
def reference(tuned, tmp_path):
    """Make a folder as the paper's code writes it, with two tasks."""
    for name in ("Cars", "DTD"):
        write(tuned, "paper", tmp_path / "ViT-B-16" / f"{name}Val" / "nonlinear_finetuned.pt")
    return tmp_path


def test_the_papers_folder_is_read_as_it_is(reference, backbone, said):
    source = source_of("reference", folder=str(reference))
    assert isinstance(source, Reference) and source.needs("vit_b16", task()) == []
    found = source.checkpoint(backbone, task(), pytest.fail)
    assert found.path == reference / "ViT-B-16" / "CarsVal" / "nonlinear_finetuned.pt"
    assert found.generation == "original"
    assert found.sha256 == source.settings(backbone, task())["sha256"] == sha256(found.path)
    assert source.head(backbone, task()) is None and not said()
    source.checkpoint(backbone, task("dtd"), pytest.fail)
    assert said() == [f"dtd: {source.remarks['dtd']}"]
    fixed = source_of("reference", folder=str(reference), generation="fixed")
    assert fixed.checkpoint(backbone, task(), pytest.fail).generation == "fixed"
    assert fixed.settings(backbone, task()) != source.settings(backbone, task())


def test_what_is_in_the_papers_folder_instead_is_told(reference):
    source = source_of("reference", folder=str(reference))
    with pytest.raises(FileNotFoundError, match="no checkpoint of vit_b16 on svhn.* CarsVal, DTDV"):
        source.path("vit_b16", task("svhn"))
    with pytest.raises(FileNotFoundError, match=f"What there is in {reference}: ViT-B-16"):
        source.path("vit_b32", task())


def test_the_older_layout_is_named(reference):
    older = reference / "ViT-B-16" / "SVHN" / "finetuned.pt"
    older.parent.mkdir()
    older.write_bytes(b"")
    source = source_of("reference", folder=str(reference))
    with pytest.raises(FileNotFoundError, match=f"{older} is there, as mlfoundations/task_vectors"):
        source.path("vit_b16", task("svhn"))


def test_heads_that_lie_beside_are_used_when_asked_for(reference, backbone):
    weights = torch.randn(3, 24)
    path = reference / "ViT-B-16" / "head_CarsVal.pt"
    source = source_of("reference", folder=str(reference), heads="file")
    with pytest.raises(FileNotFoundError, match=f"no head of cars .*heads=text.* at {path}"):
        source.settings(backbone, task())
    pickle_as(Head(weights), path)
    assert torch.equal(source.head(backbone, task()), weights)
    assert source.settings(backbone, task())["head"] == sha256(path)

    classes = {"class_names": ["red", "green"]}
    with pytest.raises(ValueError, match="head of 3 classes for 24 feat.* cars has 2 classes and"):
        source.head(backbone, task(**classes))
    pickle_as(Head(weights[:, :7]), path)
    with pytest.raises(ValueError, match="of 3 classes for 7 features; .* ViT-B/16 24 features"):
        source.head(backbone, task())


@pytest.mark.parametrize(
    ("source", "setting", "told"),
    [
        ("reference", {"heads": "files"}, "heads='files': choose text .built from prompts. or"),
        ("reference", {"generation": "new"}, "generation='new': choose one of original, fixed"),
        ("tall_masks", {"generation": "new"}, "generation='new': choose one of original, fixed"),
        ("crisostomi", {"names": "mine"}, "names='mine': there are paper, fusion_bench"),
        ("folder", {"generation": "ours"}, "generation='ours': choose one of"),
    ],
)
def test_settings_out_of_range(source, setting, told):
    folder = {"folder": "mine"} if source in ("reference", "folder") else {}
    with pytest.raises(Exception, match=told):  # Hydra wraps it
        source_of(source, **folder, **setting)
