"""A user's own checkpoints: recognized by their content, refused before a long run begins."""

import made_up.tasks
import pytest
import torch
from made_up import adapter_files, backbones
from made_up import tower_files as saved
from made_up.pickles import Encoder, pickle_as
from safetensors.torch import save_file

from tsv_bench.checkpoints.image_tower import naming_of
from tsv_bench.checkpoints.source import Folder
from tsv_bench.files import sha256
from tsv_bench.state_dicts.state_dict import open_state_dict

CARS = made_up.tasks.task("cars")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return backbones.load(
        backbones.save(backbones.clip(), tmp_path_factory.mktemp("clip") / "clip")
    )


@pytest.fixture(scope="module")
def tuned():
    return backbones.clip(seed=3).visual.state_dict()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin"])
@pytest.mark.parametrize("layout", ["visual", "open_clip", "paper"])
def test_own_checkpoints_have_any_suffix_and_layout(suffix, layout, backbone, tuned, tmp_path):
    if suffix == ".safetensors":
        content = {name: t.clone() for name, t in torch_content(layout, tuned, tmp_path).items()}
        save_file(content, tmp_path / "cars.safetensors")
    else:
        torch.save(torch_content(layout, tuned, tmp_path), tmp_path / f"cars{suffix}")
    source = Folder(folder=tmp_path, generation="original")
    found = source.checkpoint(backbone, CARS, pytest.fail)
    assert found.path == tmp_path / f"cars{suffix}"
    assert naming_of(open_state_dict(found.path), backbone.pretrained) == layout
    assert found.generation == "original" and found.sha256 == sha256(found.path)


def torch_content(layout, tower, folder):
    path = saved.save(tower, layout, folder, backbones.SMALL)
    content = dict(open_state_dict(path))
    path.unlink()
    return content


def test_two_own_checkpoints_of_one_task_are_one_too_many(tmp_path):
    for suffix in (".pt", ".bin"):
        (tmp_path / f"cars{suffix}").write_bytes(b"")
    with pytest.raises(ValueError, match="holds cars.pt and cars.bin: which of them"):
        Folder(folder=tmp_path, generation="other").path("small", CARS)


def test_a_foreign_checkpoint_is_refused_before_any_is_read(backbone, tmp_path):
    tower = {
        name: t.clone() for name, t in backbones.clip(backbones.OTHER).visual.state_dict().items()
    }
    save_file(tower, tmp_path / "cars.safetensors")
    source = Folder(folder=tmp_path, generation="other")
    with pytest.raises(ValueError, match="of cars at .*it holds 'transformer.resblocks.2"):
        source.checkpoint(backbone, CARS, pytest.fail)


@pytest.mark.parametrize("as_file", [False, True])
def test_an_adapter_is_refused_and_says_what_makes_a_checkpoint_of_it(as_file, backbone, tmp_path):
    folder = adapter_files.write(tmp_path / "cars")
    if as_file:
        (folder / "adapter_model.safetensors").rename(tmp_path / "cars.safetensors")
    with pytest.raises(ValueError, match=r"cars\S* is a LoRA adapter.*output=cars.safet"):
        Folder(folder=tmp_path, generation="other").checkpoint(backbone, CARS, pytest.fail)


def test_a_whole_pickled_encoder_is_named_by_who_writes_such(backbone, tmp_path):
    pickle_as(Encoder(), tmp_path / "cars.pt", "src.modeling", "ImageEncoder")
    source = Folder(folder=tmp_path, generation="other")
    with pytest.raises(
        ValueError, match="checkpoint of cars at .*pickled module, as mlfoundations/task_vectors"
    ):
        source.checkpoint(backbone, CARS, pytest.fail)
