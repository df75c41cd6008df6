"""A cache of the hub that may only be read: what is complete is used, what is damaged is found."""

from stand_ins.disk import read_only
from stand_ins.loopback_hub import LoopbackHub

from tsv_bench.hub import Need, fetch, look_up, require, state

CARS = Need(what="data of cars", repo="owner/cars", kind="dataset")


def test_a_complete_cache_is_used_and_checked(tmp_path, monkeypatch):
    with LoopbackHub(tmp_path / "hub") as hub:
        hub.add("dataset", "owner/cars", {"train.parquet": b"content"}, licence="mit")
        hub.use(monkeypatch, tmp_path / "home")
        folder = fetch(CARS)
        content = (folder / "train.parquet").resolve()
        read_only(monkeypatch, tmp_path / "home")
        assert fetch(CARS) == require(CARS) == folder
        assert look_up(CARS).here and state(CARS, check=True).here
        monkeypatch.undo()
        content.write_bytes(b"Content")
        hub.use(monkeypatch, tmp_path / "home")
        read_only(monkeypatch, tmp_path / "home")
        assert [file.name for file in state(CARS, check=True).damaged] == ["train.parquet"]
