"""Fetching from the hub: once, whole, continued if it was interrupted, and known offline."""

import threading
from types import SimpleNamespace

import pytest
from huggingface_hub import constants, snapshot_download
from stand_ins.loopback_hub import LoopbackHub

from tsv_bench.hub import (
    Need,
    NoNetwork,
    amount,
    download,
    fetch,
    local_folder,
    look_up,
    require,
    state,
)

TRAIN, TEST = bytes(range(256)) * 40, b"test" * 100
FILES = {"README.md": "# cars", "data/train.parquet": TRAIN, "data/test.parquet": TEST}
CARS = Need(what="data of cars", repo="owner/cars", kind="dataset")
CHECKPOINT = Need(
    what="checkpoint of cars", repo="owner/all", kind="model", patterns=("b32/CarsVal/*",)
)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with a data set and a repository of checkpoints, and an empty cache."""
    monkeypatch.setattr(download, "time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(download, "CHUNK", 1000)
    with LoopbackHub(tmp_path / "hub") as hub:
        hub.add("dataset", "owner/cars", FILES, licence="mit")
        hub.add("model", "owner/all", {f"b32/{t}Val/tuned.pt": t * 9 for t in ("Cars", "DTD")})
        hub.use(monkeypatch, tmp_path / "home")
        yield hub


def offline(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_a_data_set_is_fetched_as_the_hub_has_it(hub):
    assert local_folder(CARS) is None
    folder = fetch(CARS)
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert found == {**FILES, "README.md": b"# cars"}
    assert local_folder(CARS) == require(CARS) == folder


def test_only_the_files_that_match_are_fetched(hub):
    folder = fetch(CHECKPOINT)
    assert (folder / "b32/CarsVal/tuned.pt").read_text() == "Cars" * 9
    assert hub.contents() == [("b32/CarsVal/tuned.pt", None)]


def test_nothing_is_fetched_twice(hub):
    fetch(CARS)
    assert sorted(name for name, _ in hub.contents()) == sorted(FILES)
    asked = len(hub.requests)
    assert fetch(CARS) and look_up(CARS).here
    assert len(hub.requests) == asked


def test_two_at_a_time_fetch_once(hub):
    threads = [threading.Thread(target=fetch, args=(CARS,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for name, _ in hub.contents()) == sorted(FILES)
    assert state(CARS).here


def test_sizes_and_licence_are_those_of_the_hub_or_of_the_need(hub):
    unknown = Need(what="it", repo="owner/cars", kind="dataset", num_bytes=7, licence="own")
    assert (state(unknown).num_bytes, state(unknown).licence) == (7, "own")
    assert (state(CARS).num_bytes, state(CARS).licence) == (None, None)
    total = len(TRAIN) + len(TEST) + len("# cars")
    assert (look_up(CARS).num_bytes, look_up(CARS).missing_bytes) == (total, total)
    assert look_up(CARS).licence == "mit"
    assert look_up(unknown).licence == "own"
    fetch(CARS)
    assert (state(CARS).num_bytes, state(CARS).missing_bytes) == (total, 0)


def test_after_a_cut_connection_only_the_rest_is_asked_for(hub):
    hub.cut("data/train.parquet", after=3500)
    folder = fetch(CARS)
    assert (folder / "data/train.parquet").read_bytes() == TRAIN
    ranges = [asked for name, asked in hub.contents() if name == "data/train.parquet"]
    assert ranges == [None, "bytes=3000-"]  # in chunks of 1000


def test_a_later_call_goes_on_where_an_earlier_one_was_stopped(hub):
    class Stopped(BaseException):
        pass

    def stop(seconds):
        raise Stopped

    hub.cut("data/train.parquet", after=3500)
    download.time.sleep = stop  # before the first retry
    with pytest.raises(Stopped):
        fetch(CARS)
    left = {file.name: file for file in state(CARS).missing}["data/train.parquet"]
    assert CARS.repository.partial(left).read_bytes() == TRAIN[:3000]
    fetch(CARS)
    ranges = [asked for name, asked in hub.contents() if name == "data/train.parquet"]
    assert ranges == [None, "bytes=3000-"]
    assert require(CARS).joinpath("data/train.parquet").read_bytes() == TRAIN


def test_a_server_that_sends_the_whole_instead_of_the_rest_is_understood(hub):
    hub.ranges = False
    hub.cut("data/train.parquet", after=3500, times=2)
    folder = fetch(CARS)
    assert (folder / "data/train.parquet").read_bytes() == TRAIN
    ranges = [asked for name, asked in hub.contents() if name == "data/train.parquet"]
    assert ranges == [None, "bytes=3000-", "bytes=3000-"]


def test_attempts_that_bring_nothing_are_given_up_and_what_came_before_is_kept(hub):
    hub.cut("data/train.parquet", after=3500)
    waited = []

    def cut_again(seconds):
        waited.append(seconds)
        hub.cut("data/train.parquet", after=0)

    download.time.sleep = cut_again
    with pytest.raises(NoNetwork, match="what was fetched is kept"):
        fetch(CARS)
    assert len(waited) == download.TRIES - 1  # counted from the first, which brought something
    left = {file.name: file for file in state(CARS).missing}["data/train.parquet"]
    assert CARS.repository.partial(left).read_bytes() == TRAIN[:3000]


def test_an_empty_file_is_fetched_too(hub):
    hub.add("model", "owner/empty", {"empty.txt": ""})
    folder = fetch(Need(what="nothing", repo="owner/empty", kind="model"))
    assert (folder / "empty.txt").read_bytes() == b""


def test_content_that_does_not_have_its_hash_is_refused_and_not_kept(hub):
    hub.spoil("data/train.parquet", TRAIN[::-1])
    with pytest.raises(OSError, match=r"data/train.parquet of data of cars .* came damaged"):
        fetch(CARS)
    assert not state(CARS).here
    assert state(CARS).missing_bytes == len(TRAIN)
    hub.spoil("data/train.parquet", TRAIN)
    fetch(CARS)
    assert state(CARS, check=True).here


def test_without_a_network_what_was_fetched_is_found(hub, monkeypatch):
    folder = fetch(CARS)
    offline(monkeypatch)
    asked = len(hub.requests)
    assert require(CARS) == folder == fetch(CARS)
    with pytest.raises(OSError, match=r"checkpoint of cars \(owner/all\) is not here .*tsv-fetch"):
        require(CHECKPOINT)
    with pytest.raises(NoNetwork, match="HF_HUB_OFFLINE=1 forbids"):
        fetch(CHECKPOINT)
    assert len(hub.requests) == asked


def test_a_hub_that_cannot_be_reached_is_named(hub):
    hub.close()
    with pytest.raises(NoNetwork, match=rf"data of cars \(owner/cars\) .*{hub.url} cannot be"):
        fetch(CARS)


def test_a_gated_repository_says_where_to_accept(hub):
    hub.gate("owner/cars")
    assert look_up(CARS).num_bytes  # the hub shows what there is
    with pytest.raises(OSError, match=rf"gated.*{hub.url}/datasets/owner/cars .*hf auth login"):
        fetch(CARS)


@pytest.mark.parametrize("token", [None, "hf_made_up"])
def test_an_absent_repository_is_named(hub, monkeypatch, token):
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    absent = Need(what="data of dogs", repo="owner/dogs", kind="dataset")
    with pytest.raises(
        OSError, match=r"data of dogs \(owner/dogs\).* no such dataset, or it is pri"
    ):
        fetch(absent)


def test_an_absent_revision_is_named(hub):
    other = Need(what="data of cars", repo="owner/cars", kind="dataset", revision="v9")
    with pytest.raises(OSError, match="has no revision 'v9'"):
        fetch(other)


def test_absent_files_are_named_beside_those_that_are_there(hub):
    other = Need(what="data of cars", repo="owner/cars", kind="dataset", patterns=("*.tar",))
    message = r"no file that matches \*\.tar .* it has: README.md, data/test.parquet"
    with pytest.raises(OSError, match=message):
        fetch(other)
    fetch(CARS)
    with pytest.raises(OSError, match=message):
        fetch(other)


def test_a_file_listed_but_not_given_is_named(hub):
    look_up(CARS)
    hub.withhold("data/train.parquet")
    with pytest.raises(OSError, match=r"lists a file that it does not give, .*data/train.parquet"):
        fetch(CARS)


def test_a_deleted_file_is_missing_and_alone_fetched_again(hub):
    (fetch(CARS) / "data/test.parquet").resolve().unlink()
    found = state(CARS)
    assert not found.here and local_folder(CARS) is None
    assert [file.name for file in found.missing] == ["data/test.parquet"]
    assert found.missing_bytes == len(TEST)
    hub.requests.clear()
    assert fetch(CARS) == local_folder(CARS)
    assert hub.contents() == [("data/test.parquet", None)]


def test_a_shortened_file_is_damaged_and_alone_fetched_again(hub):
    path = fetch(CARS) / "data/train.parquet"
    path.resolve().write_bytes(TRAIN[:100])
    assert str(state(CARS)) == "damaged: data/train.parquet"
    with pytest.raises(OSError, match=r"not here \(damaged: data/train.parquet\)"):
        require(CARS)
    hub.requests.clear()
    fetch(CARS)
    assert path.read_bytes() == TRAIN
    assert hub.contents() == [("data/train.parquet", None)]


def test_a_changed_byte_is_found_by_check_and_remembered(hub):
    path = fetch(CARS) / "data/train.parquet"
    path.resolve().write_bytes(b"?" + TRAIN[1:])
    assert state(CARS).here
    assert [file.name for file in state(CARS, check=True).damaged] == ["data/train.parquet"]
    assert local_folder(CARS) is None
    fetch(CARS)
    assert path.read_bytes() == TRAIN
    assert state(CARS).here and state(CARS, check=True).here


def test_a_file_put_right_by_hand_is_accepted_by_the_next_check(hub):
    path = (fetch(CARS) / "README.md").resolve()
    path.write_text("# cats")
    assert not state(CARS, check=True).here
    path.write_text("# cars")
    assert not state(CARS).here
    assert state(CARS, check=True).here and state(CARS).here


def test_check_on_part_of_a_repository_forgets_no_damage_elsewhere(hub):
    everything = Need(what="all", repo="owner/all", kind="model")
    path = fetch(everything) / "b32/DTDVal/tuned.pt"
    path.resolve().write_text("DTd" * 9)
    assert not state(everything, check=True).here
    assert state(CHECKPOINT, check=True).here
    assert not state(everything).here


def test_huggingface_hub_finds_what_was_fetched_and_what_it_fetched_is_not_fetched_again(hub):
    folder = fetch(CARS)
    arguments = {"repo_type": "dataset", "cache_dir": constants.HF_HUB_CACHE}
    assert snapshot_download("owner/cars", local_files_only=True, **arguments) == str(folder)

    snapshot_download("owner/all", cache_dir=constants.HF_HUB_CACHE)
    hub.requests.clear()
    assert fetch(CHECKPOINT) and not hub.contents()


def test_an_unreadable_record_is_made_anew(hub):
    fetch(CARS)
    CARS.repository.record.write_text("{")
    assert not state(CARS).here
    hub.requests.clear()
    assert fetch(CARS) and not hub.contents()


def test_what_a_need_is_must_be_known():
    with pytest.raises(ValueError, match="data of cars is of kind 'space'; there are: dataset, mo"):
        Need(what="data of cars", repo="owner/cars", kind="space")


def test_amounts_read_as_people_write_them():
    numbers = [None, 0, 999, 1500, 605_000_000, 9_400_000_000, 27_000_000_000]
    shown = ["?", "0 bytes", "999 bytes", "1.5 kB", "605 MB", "9.4 GB", "27 GB"]
    assert list(map(amount, numbers)) == shown
