"""A hub that lies about what it has: nothing outside the cache is written or deleted, and no lie
stays when it is honest again."""

import os
from pathlib import Path

import pytest
from stand_ins.loopback_hub import LoopbackHub

from tsv_bench.hub import Need, NoNetwork, download, fetch, look_up, state
from tsv_bench.hub.listing import File

TRAIN, TEST = bytes(range(256)) * 20, b"test" * 100
FILES = {"README.md": "# cars", "data/train.parquet": TRAIN, "data/test.parquet": TEST}
CARS = Need(what="data of cars", repo="owner/cars", kind="dataset")
NAME = "data/train.parquet"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "WAIT", 0)
    monkeypatch.setattr(download, "CHUNK", 1000)
    with LoopbackHub(tmp_path / "hub") as hub:
        hub.add("dataset", "owner/cars", FILES)
        hub.use(monkeypatch, tmp_path / "home")
        yield hub


@pytest.fixture
def thesis(tmp_path):
    """A file of the user's that lies outside the cache."""
    path = tmp_path / "thesis" / "train.parquet"
    path.parent.mkdir()
    path.write_bytes(b"years of work")
    yield path
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == b"years of work"


def entries(name=NAME, **changes):
    """A listing whose entry of this file has these changes."""

    def change(listing):
        for entry in listing["siblings"]:
            if entry["rfilename"] == name:
                entry.update(changes)
        return listing

    return change


def commit(value):
    return lambda listing: {**listing, "sha": value}


def all_is_here():
    folder = fetch(CARS)
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return found == {**FILES, "README.md": b"# cars"} and state(CARS, check=True).here


@pytest.mark.parametrize("place", ["absolute", "upward"])
@pytest.mark.parametrize("field", ["rfilename", "blobId", "sha256", "sha"])
def test_a_path_outside_is_refused_before_anything_is_written(hub, tmp_path, thesis, place, field):
    cache = tmp_path / "home" / "hub" / "datasets--owner--cars"
    deep = cache / "snapshots" / "a"
    path = str(thesis if place == "absolute" else os.path.relpath(thesis, deep))
    hub.relist(
        {
            "rfilename": entries(rfilename=path),
            "blobId": entries(blobId=path, lfs=None),
            "sha256": entries(lfs={"sha256": path, "size": 1, "pointerSize": 1}),
            "sha": commit(path),
        }[field]
    )
    for ask in (look_up, fetch):
        with pytest.raises(OSError, match=r"data of cars .* cannot be believed.*HF_ENDPOINT right"):
            ask(CARS)
    assert not [p for p in cache.rglob("*") if ".lease-" not in p.name]
    hub.relist()
    assert all_is_here()


@pytest.mark.parametrize("recorded", [True, False])
def test_a_record_that_names_a_path_outside_is_not_believed(hub, thesis, recorded):
    """As an earlier version, which believed everything, may have written it."""
    if recorded:
        look_up(CARS)
    record = CARS.repository.record
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(
        f'{{"commit": "{"a" * 40}", "licence": null, "damaged": [], '
        f'"files": [["{thesis}", 3, "{"b" * 40}"]]}}'
    )
    assert not state(CARS).files
    assert all_is_here()


def test_a_link_in_the_cache_leads_no_one_outside(hub, thesis):
    found = look_up(CARS)
    found.folder.mkdir(parents=True)
    (found.folder / "data").symlink_to(thesis.parent)
    with pytest.raises(
        OSError, match=r"data/.*parquet is not to be written: a symbolic link .*Rem"
    ):
        fetch(CARS)
    (found.folder / "data").unlink()
    assert all_is_here()


def test_a_download_is_not_written_through_a_link(hub, thesis):
    (file,) = [file for file in look_up(CARS).files if file.name == NAME]
    part = CARS.repository.partial(file)
    part.parent.mkdir(parents=True)
    part.symlink_to(thesis)
    assert all_is_here()


def test_the_hubs_headers_name_no_file(hub, thesis):
    """huggingface_hub takes the name of the content from the header ETag."""

    def answer(handler):
        tag = {"ETag": f'"{thesis}"', "X-Linked-ETag": f'"{thesis}"', "X-Repo-Commit": "../.."}
        handler.begin(200, {**tag, "Content-Length": str(len(TRAIN))})
        handler.wfile.write(TRAIN)

    hub.lie(f"/{NAME}", answer)
    assert all_is_here()


def test_more_bytes_than_listed_are_not_written(hub):
    def answer(handler):
        handler.close_connection = True
        handler.begin(200, {})
        while True:
            handler.wfile.write(TRAIN)

    hub.lie(f"/{NAME}", answer)
    assert all_is_here()  # it begins as it should

    hub.lie("/README.md", answer)
    (fetch(CARS) / "README.md").resolve().unlink()
    with pytest.raises(OSError, match="README.md of data of cars .* came damaged"):
        fetch(CARS)
    assert sorted(p.name for p in CARS.repository.home.glob("blobs/*.part")) == []


def test_fewer_bytes_than_listed_are_told(hub):
    hub.spoil(NAME, TRAIN[:3500])

    def rest(handler):
        handler.begin(206, {"Content-Length": "0"})

    def answer(handler):
        handler.begin(200, {"Content-Length": "3500"})
        handler.wfile.write(TRAIN[:3500])
        hub.lie(f"/{NAME}", rest)

    hub.lie(f"/{NAME}", answer)
    with pytest.raises(OSError, match=rf"{NAME} .* has 3500 bytes here, {len(TRAIN)} are listed"):
        fetch(CARS)
    hub._lies.clear()
    hub.spoil(NAME, TRAIN)
    hub.requests.clear()
    assert all_is_here()
    assert (NAME, "bytes=3500-") in hub.contents()


def test_a_file_sent_from_its_beginning_again_and_again_is_given_up(hub):
    """Each try brings bytes, and none brings more than the one before."""
    hub.ranges = False
    hub.cut(NAME, after=3500, times=1000)
    with pytest.raises(NoNetwork):
        fetch(CARS)
    tried = [name for name, _ in hub.contents() if name == NAME]
    assert len(tried) == download.TRIES


@pytest.mark.parametrize(
    ("asked", "waited"),
    [
        ({"Retry-After": "7"}, 7),
        ({"RateLimit": '"api";r=0;t=55'}, 55),
        ({"Retry-After": "9" * 400}, download.MAX_WAIT),
        ({"Retry-After": "-1"}, 1.0),
        ({}, 1.0),
    ],
)
def test_a_busy_hub_is_waited_for_but_not_for_ever(hub, monkeypatch, asked, waited):
    monkeypatch.setattr(download, "WAIT", 1.0)
    waits = []

    def wait(seconds):
        waits.append(seconds)
        hub._lies.clear()

    monkeypatch.setattr(download.time, "sleep", wait)
    hub.lie(f"/{NAME}", lambda handler: handler.begin(429, {**asked, "Content-Length": "0"}))
    assert all_is_here()
    assert waits == [waited]


LIES = {
    "a commit that is none of its own": commit("a" * 40),
    "another digest": entries(lfs={"sha256": "b" * 64}),
    "a size too small": entries(size=10),
    "a size too large": entries(size=len(TRAIN) + 10),
    "another size where git hashes": entries(name="README.md", size=3),
    "more than any disk holds": entries(size=10**15),
    "a file that is not there": entries(rfilename="data/other.parquet"),
    "no file": lambda listing: {**listing, "siblings": []},
    "nothing at all": lambda _: [],
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_does_not_stay_when_the_hub_is_honest_again(hub, lie):
    hub.relist(LIES[lie])
    with pytest.raises(OSError, match="data of cars"):
        fetch(CARS)
    hub.relist()
    assert all_is_here()


@pytest.mark.parametrize("lie", [lie for lie in LIES if "size" in lie or lie == "no file"])
def test_a_lie_about_what_is_here_loses_nothing(hub, lie):
    (fetch(CARS) / "data/test.parquet").resolve().unlink()
    hub.relist(LIES[lie])
    with pytest.raises(OSError, match="data of cars"):
        fetch(CARS)
    hub.relist()
    hub.requests.clear()
    assert all_is_here()
    assert {name for name, _ in hub.contents()} <= {"data/test.parquet"}


def test_a_record_keeps_its_commit_when_the_hub_has_a_newer_one(hub, tmp_path):
    """What is fetched later belongs to what was fetched before."""
    before = look_up(CARS)
    assert before == look_up(CARS)
    asked = [r.path for r in hub.requests]
    assert asked[0].endswith("/revision/main")
    assert asked[1].endswith(f"/revision/{before.folder.name}")


def test_the_files_of_a_long_listing_are_not_compared_with_each_other(hub, monkeypatch):
    """Compared with all that are missing, 200,000 names take hours."""
    many = [{"rfilename": f"{n}.png", "size": 1, "blobId": f"{n:040x}"} for n in range(300)]
    hub.relist(lambda listing: {**listing, "siblings": many})
    compared, equal = [], File.__eq__
    monkeypatch.setattr(File, "__eq__", lambda a, b: compared.append(a) or equal(a, b))
    found = look_up(CARS)
    assert (len(found.missing), found.missing_bytes) == (300, 300)
    assert len(compared) <= 10 * 300


def test_without_symbolic_links_contents_are_copied(hub, monkeypatch):
    def refused(*_):
        raise OSError("not supported")

    monkeypatch.setattr(Path, "symlink_to", refused)
    assert all_is_here()
