"""Files beside weights: those of the folder and of the hub's cache go along, links out do not."""

import os

import pytest
from made_up.merges import made, pretrained, write_checkpoints
from made_up.state_dicts import save_sharded

from tsv_bench.state_dicts.other_files import own_files
from tsv_bench.state_dicts.state_dict import open_state_dict

DIGEST = "0123456789abcdef" * 4


def names(folder):
    return [path.name for path in own_files(folder, sorted(folder.iterdir()))]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "secret").write_text("key")
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_links_within_the_folder_are_followed(folder, tmp_path, caplog):
    (folder / "deep").mkdir()
    (folder / "deep" / "a").write_text("a")
    (folder / "one").symlink_to("config.json")
    (folder / "two").symlink_to(folder / "deep" / "a")
    (tmp_path / "linked").symlink_to(folder)
    for given in (folder, tmp_path / "linked"):
        assert names(given) == ["config.json", "deep", "one", "two"]
    assert not caplog.text


@pytest.mark.parametrize("target", ["../secret", os.__file__, "gone", "loop", "../pipe"])
def test_other_links_are_named_and_left_out(folder, target, caplog):
    os.mkfifo(folder.parent / "pipe")
    (folder / "loop").symlink_to(target)
    assert names(folder) == ["config.json"]
    assert f"{folder / 'loop'} is a link that leads to no file in its folder" in caplog.text


def test_a_link_by_way_of_a_link_is_left_out(folder):
    (folder / "b").symlink_to("../secret")
    (folder / "a").symlink_to("b")
    assert names(folder) == ["config.json"]


@pytest.mark.parametrize("digest", [DIGEST, DIGEST[:40]])
def test_the_content_of_a_snapshot_in_the_hubs_cache_is_its_own(tmp_path, digest, caplog):
    home = tmp_path / "models--a--b"
    for folder in (home / "blobs", home / "snapshots" / DIGEST[:40] / "deep"):
        folder.mkdir(parents=True)
    (home / "blobs" / digest).write_text("{}")
    snapshot = home / "snapshots" / DIGEST[:40]
    (snapshot / "config.json").symlink_to(f"../../blobs/{digest}")
    (snapshot / "deep" / "config.json").symlink_to(f"../../../blobs/{digest}")
    assert names(snapshot) == ["config.json", "deep"] and names(snapshot / "deep") == [
        "config.json"
    ]
    assert not caplog.text


def test_only_content_of_this_repository_is(tmp_path):
    snapshot = tmp_path / "models--a--b" / "snapshots" / DIGEST[:40]
    snapshot.mkdir(parents=True)
    for number, target in enumerate(
        [
            f"../../../models--c--d/blobs/{DIGEST}",  # of another repository
            "../../blobs/passwords",
            f"../../refs/{DIGEST}",
        ]
    ):
        (snapshot / target).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / target).write_text("key")
        (snapshot / str(number)).symlink_to(target)
    assert names(snapshot) == []


def test_a_merge_copies_no_link_out_and_says_so_once(folder, tmp_path, caplog):
    write_checkpoints(tmp_path)
    save_sharded(folder, content=pretrained())
    (folder / "tokenizer.json").symlink_to("../secret")
    (folder / "broken.json").symlink_to("gone")
    assert len(open_state_dict(folder).other_files) == 3
    assert not caplog.text  # a checkpoint that is only read copies nothing
    made(tmp_path, "individual", "out", base="base")
    assert caplog.text.count("is not copied") == 2
    for task in "ab":
        found = sorted(path.name for path in (tmp_path / "out" / task).iterdir())
        shards = ["model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json"]
        assert found == ["config.json", *shards]
