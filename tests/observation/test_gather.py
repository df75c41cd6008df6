"""Statistics are gathered once, kept by what they are of, and found damaged or another's."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from tsv_bench.data import Split
from tsv_bench.files import lease
from tsv_bench.models import build_mini
from tsv_bench.observation import gather
from tsv_bench.observation.gather import Observatory, Shown, drawn
from tsv_bench.observation.statistics_file import StatisticsFile

KINDS = ("inputs", "means", "fisher")


@pytest.fixture(scope="module")
def visual():
    torch.manual_seed(0)
    return build_mini("mini", 9).visual.eval()


@pytest.fixture
def observed(visual):
    size = visual.image_size[0]
    pixels = torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8)
    about = {"checkpoint": "c", "data": "d", "split": "val", "images": 4, "seed": 0}
    head = torch.randn(3, visual.proj.shape[1])
    return Shown(task="land", state=visual.state_dict(), head=head, images=pixels, about=about)


def test_one_pass_gives_the_kinds_of_linear_inputs_and_a_file_each(
    visual, observed, tmp_path, monkeypatch
):
    passes = []
    monkeypatch.setattr(
        gather, "linear_inputs", lambda *a, run=gather.linear_inputs: passes.append(a) or run(*a)
    )
    observatory = Observatory(visual, tmp_path, "cpu")
    found = observatory.statistics(observed, KINDS, "sampled")
    assert len(passes) == 1 and set(found) == set(KINDS)
    assert {path.name.split(".")[1] for path in tmp_path.glob("land-*")} == set(KINDS)
    for kind, file in found.items():
        assert file.about["kind"] == kind and file.about["checkpoint"] == "c"
        assert file.about["forward_passes"] == (8 if kind == "fisher" else 4)
        assert file.about["backward_passes"] == (4 if kind == "fisher" else 0)
    weights = dict(visual.named_parameters())
    assert set(found["fisher"]) == set(weights)
    for name, layer in found["inputs"].items():
        how = found["inputs"].gathered(name)
        assert layer.shape == (weights[name].shape[how.axis],) * 2
        torch.testing.assert_close(layer, layer.mT, rtol=0, atol=0)
        assert found["means"][name].shape == layer.shape[:1]

    again = Observatory(visual, tmp_path, "cpu").statistics(observed, KINDS, "sampled")
    assert len(passes) == 1
    for kind in KINDS:
        for name in found[kind]:
            assert torch.equal(again[kind][name], found[kind][name])


def test_another_checkpoint_image_or_seed_has_statistics_of_its_own(visual, observed, tmp_path):
    observatory = Observatory(visual, tmp_path, "cpu")
    for change in ({}, {"checkpoint": "e"}, {"data": "e"}, {"seed": 1}, {"images": 3}):
        about = dict(observed.about) | change
        other = Shown(
            task="land", state=observed.state, head=None, images=observed.images, about=about
        )
        observatory.statistics(other, ("means",))
    assert len(list(tmp_path.glob("land-*.means.safetensors"))) == 5


def test_another_classifier_has_a_fisher_information_of_its_own(visual, observed, tmp_path):
    observatory = Observatory(visual, tmp_path, "cpu")
    first = observatory.statistics(observed, ("fisher",), "exact")["fisher"]
    other = dataclasses.replace(observed, head=observed.head.flip(0) * 2)
    second = observatory.statistics(other, ("fisher",), "exact")["fisher"]
    assert first.path != second.path and not torch.equal(first["proj"], second["proj"])


def test_what_is_there_is_read_where_nothing_can_be_written(
    visual, observed, tmp_path, monkeypatch
):
    Observatory(visual, tmp_path, "cpu").statistics(observed, ("means",))

    def refuse(*args):
        raise PermissionError("read-only")

    monkeypatch.setattr(gather, "leased", refuse)
    assert Observatory(visual, tmp_path, "cpu").statistics(observed, ("means",))


@pytest.mark.parametrize("damage", ["cut", "other", "no json"])
def test_damaged_files_are_gathered_again(visual, observed, tmp_path, caplog, damage):
    observatory = Observatory(visual, tmp_path, "cpu")
    file = observatory.statistics(observed, ("means",))["means"]
    content = file.path.read_bytes()
    broken = {
        "cut": content[:-8],
        "other": content.replace(b"tsv_bench.statistics", b"tsv_bench.statistic_"),
        "no json": content.replace(rb"{\"checkpoint", rb"[\"checkpoint"),
    }[damage]
    assert broken != content
    file.path.write_bytes(broken)
    again = observatory.statistics(observed, ("means",))["means"]
    assert "gathering them again" in caplog.text
    assert again.path.read_bytes()[-100:] == content[-100:]


def test_two_processes_wait_for_each_other(visual, observed, tmp_path, monkeypatch):
    taken = []

    def leased(path):
        taken.append(path)
        return lease.leased(path)

    monkeypatch.setattr(gather, "leased", leased)
    Observatory(visual, tmp_path, "cpu").statistics(observed, ("means",))
    assert taken == [tmp_path / "land"]


def test_a_network_that_overflows_is_named_and_leaves_nothing(visual, observed, tmp_path):
    state = {name: tensor * 1e20 for name, tensor in observed.state.items()}
    broken = Shown(
        task="land", state=state, head=None, images=observed.images, about=observed.about
    )
    with pytest.raises(ValueError, match="the network of land computes NaN or infinity at"):
        Observatory(visual, tmp_path, "cpu").statistics(broken, ("inputs",))
    assert not list(tmp_path.glob("land*"))


def test_images_are_drawn_by_the_seed_as_the_code_of_esm_draws_them():
    split = Split(torch.zeros(50, 3, 2, 2, dtype=torch.uint8), torch.zeros(50, dtype=torch.long))
    expected = sorted(np.random.RandomState(3).choice(50, 7, replace=False))
    assert drawn(split, 7, 3, "x").tolist() == expected
    assert drawn(split, 50, 3, "x").tolist() == list(range(50))
    with pytest.raises(ValueError, match="the val images of land are 50 images, .* see 51"):
        drawn(split, 51, 3, "the val images of land")


def test_a_file_says_what_it_is_of(visual, observed, tmp_path):
    path = Observatory(visual, tmp_path, "cpu").statistics(observed, ("inputs",))["inputs"].path
    file = StatisticsFile(path)
    assert file.kind == "inputs"
    assert json.dumps(file.about)  # plain data
    assert file.gathered("proj").axis == 0 and file.gathered("proj").count == 4
