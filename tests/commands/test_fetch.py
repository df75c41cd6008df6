"""tsv-fetch: what runs need is listed, fetched, checked; then they work without a network."""

import json
import shutil
import signal
import subprocess
import sys
from collections import namedtuple

import pytest
from huggingface_hub import constants
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from stand_ins import loopback_hub
from stand_ins.commands import tsv
from stand_ins.loopback_hub import LoopbackHub
from stand_ins.processes import Started

from tsv_bench.cli.config import needs
from tsv_bench.cli.config.overrides import CONF
from tsv_bench.cli.work import fetch
from tsv_bench.hub.needs import Need

CARS, DTD = "tanganke/stanford_cars", "tanganke/dtd"
WEIGHTS = "timm/vit_base_patch32_clip_224.openai"
ARGUMENTS = ("suite=vision8", "suite.tasks=[cars,dtd]", "backbone=vit_b32")
LARGE = b"weights " * 100_000


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The repositories of two tasks and a backbone, made up, and an empty cache."""
    with LoopbackHub(tmp_path / "hub") as hub:
        for repo in (CARS, DTD):
            splits = {f"data/{s}-00000-of-00001.parquet": f"{repo} {s}" for s in ("train", "test")}
            hub.add("dataset", repo, {"README.md": "# made up", **splits}, licence="mit")
        hub.add("model", WEIGHTS, {"open_clip_model.safetensors": LARGE, "other.bin": b"not asked"})
        hub.use(monkeypatch, tmp_path / "home")
        yield hub


def files(hub):
    return sorted(name for name, _ in hub.contents())


def row(out, what):
    return next(line for line in out.splitlines() if line.startswith(what))


def blob(tmp_path, content):
    """Where the cache keeps this content."""
    found = (tmp_path / "home").glob("hub/*/blobs/*")
    return next(path for path in found if path.read_bytes() == content)


class Source:
    """A source of checkpoints that downloads, and is made of nothing else."""

    def __init__(self, owner):
        self.owner = owner

    def needs(self, backbone, task):
        repo = f"{self.owner}/{backbone}_{task.name}"
        return [Need(what=f"checkpoint of {task.name}", repo=repo, kind="model")]


def composed(command, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(command, list(overrides), return_hydra_config=True)


def test_the_embedded_suite_needs_nothing(tmp_path):
    result = tsv(tmp_path, "fetch")
    assert result.code == 0
    assert "Nothing to fetch" in result.out
    assert "HF_HUB_OFFLINE=1 tsv-bench" in result.out


def test_data_and_weights_are_listed_fetched_and_then_enough(hub, tmp_path, monkeypatch):
    result = tsv(tmp_path, "fetch", *ARGUMENTS)
    assert result.code == 0, result.err
    assert row(result.out, "what").split() == ["what", "repository", "size", "licence", "state"]
    assert row(result.out, "data of cars").split()[-3:] == ["bytes", "mit", "missing"]
    weights = row(result.out, "weights of vit_b32")
    assert WEIGHTS in weights and "800 kB" in weights and "apache-2.0" in weights
    assert "open_clip_model.safetensors" in files(hub) and "other.bin" not in files(hub)
    last = result.out.strip().splitlines()[-1]
    assert last == (
        "HF_HUB_OFFLINE=1 tsv-bench suite=vision8 'suite.tasks=[cars,dtd]' backbone=vit_b32"
    )

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    again = tsv(tmp_path, "fetch", *ARGUMENTS)
    assert again.code == 0 and not hub.requests
    assert row(again.out, "data of dtd").endswith("here")
    assert "to fetch: 0 bytes" in again.out


def test_all_cells_of_an_experiment_are_listed_once(hub, tmp_path):
    """Of three backbones and seven methods; then of two suites, as a sweep."""
    whole = tsv(tmp_path, "fetch", "experiment=table_2", "suite=vision20", "check=true")
    lines = whole.out.splitlines()
    kinds = {kind: [x for x in lines if x.startswith(kind)] for kind in ("data", "checkp", "weig")}
    assert [len(found) for found in kinds.values()] == [20, 60, 3]
    assert len(set(kinds["data"])) == 20
    assert "to fetch: 80 GB" in lines  # every size is known, about
    assert "decoded pixels: 47 GB, which the runs write to paths.data=" in lines
    assert (
        whole.code == 1
        and "Fetch it with: tsv-fetch experiment=table_2 suite=vision20\n" in whole.err
    )
    line = ["suite=vision8,vision14", "backbone=vit_b32", "suite.tasks=[cars,dtd]"]
    part = tsv(tmp_path, "fetch", *line)
    assert part.code == 0, part.err
    assert "HF_HUB_OFFLINE=1 tsv-bench --multirun suite=vision8,vision14 backbone=vit" in part.out
    assert sum(x.startswith("data of") for x in part.out.splitlines()) == 2


def test_check_fetches_nothing_and_fails_with_the_command_to_run(hub, tmp_path):
    result = tsv(tmp_path, "fetch", *ARGUMENTS, "check=true")
    assert result.code == 1 and not hub.requests
    assert "3 of the 3 things that are needed from the hub are not here:" in result.err
    for repo in (CARS, DTD, WEIGHTS):
        assert f"({repo})" in result.err
    assert "Fetch it with: tsv-fetch suite=vision8 'suite.tasks=[cars,dtd]' backb" in result.err


def test_check_passes_on_what_is_whole_and_finds_what_is_damaged(hub, tmp_path):
    tsv(tmp_path, "fetch", *ARGUMENTS)
    whole = tsv(tmp_path, "fetch", *ARGUMENTS, "check=true")
    assert whole.code == 0 and row(whole.out, "weights of").endswith("here")

    path = blob(tmp_path, LARGE)
    path.write_bytes(LARGE[:-1] + b"?")
    damaged = tsv(tmp_path, "fetch", *ARGUMENTS, "check=true")
    assert damaged.code == 1
    assert "1 of the 3 things" in damaged.err
    assert "800 kB: damaged: open_clip_model.safetensors" in damaged.err
    hub.requests.clear()
    assert tsv(tmp_path, "fetch", *ARGUMENTS).code == 0
    assert files(hub) == ["open_clip_model.safetensors"]
    assert path.read_bytes() == LARGE


def test_what_can_be_fetched_is_and_each_problem_is_named(hub, tmp_path):
    hub.gate(CARS)
    shutil.rmtree(tmp_path / "hub" / "models")
    result = tsv(tmp_path, "fetch", *ARGUMENTS)
    assert result.code == 1
    assert f"data of cars ({CARS}) is gated" in result.err
    assert f"weights of vit_b32 ({WEIGHTS}) is not at {hub.url}/{WEIGHTS} " in result.err
    again = tsv(tmp_path, "fetch", *ARGUMENTS, "check=true")
    assert row(again.out, "data of dtd").endswith("here")
    assert row(again.out, "data of cars").endswith("missing")


def test_without_a_network_all_that_is_missing_is_named(hub, tmp_path):
    tsv(tmp_path, "fetch", "suite=vision8", "suite.tasks=[cars]")
    hub.close()
    result = tsv(tmp_path, "fetch", *ARGUMENTS)
    assert result.code == 1
    assert "2 of the 3 things" in result.err and f"({DTD})" in result.err and WEIGHTS in result.err
    assert f"{hub.url} cannot be reached" in result.err
    assert f"({CARS})" not in result.err


def test_a_network_lost_on_the_way_leaves_what_was_fetched(hub, tmp_path, monkeypatch):
    fetch_one, wanted = fetch.hub.fetch, []

    def close_before_the_second(need):
        wanted.append(need.repo)
        if len(wanted) == 2:
            hub.close()
        return fetch_one(need)

    monkeypatch.setattr(fetch.hub, "fetch", close_before_the_second)
    result = tsv(tmp_path, "fetch", *ARGUMENTS)
    assert result.code == 1 and wanted == [CARS, DTD]
    message = result.err.partition("tsv-fetch: error: ")[2]
    assert "2 of the 3 things" in message and f"{hub.url} cannot be reached" in message
    assert f"({DTD})" in message and f"({CARS})" not in message


def test_a_full_disk_is_told_before_anything_is_fetched(hub, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 700_000))
    result = tsv(tmp_path, "fetch", *ARGUMENTS)
    assert result.code == 1 and not hub.contents()
    assert "1 MB free" in result.err or "0.7 MB free" in result.err
    assert str(tmp_path / "home" / "hub") in result.err


def named_outside(listing):
    listing["siblings"][0]["rfilename"] = "../../../../../thesis"
    return listing


def larger_than_any_disk(listing):
    listing["siblings"][0]["size"] = 10**15
    return listing


@pytest.mark.parametrize(
    ("lie", "message"),
    [(named_outside, "cannot be believed"), (larger_than_any_disk, "are needed. Make room")],
)
def test_a_hub_that_lies_is_told_and_can_be_honest_again(hub, tmp_path, lie, message):
    hub.relist(lie)
    result = tsv(tmp_path, "fetch", *ARGUMENTS)
    assert result.code == 1 and message in result.err and "Traceback" not in result.err
    hub.relist()
    again = tsv(tmp_path, "fetch", *ARGUMENTS)
    assert again.code == 0, again.err
    assert tsv(tmp_path, "fetch", *ARGUMENTS, "check=true").code == 0


def test_check_is_true_or_false(tmp_path):
    result = tsv(tmp_path, "fetch", "check=maybe")
    assert result.code == 1 and "check='maybe' is neither true nor false" in result.err


def test_checkpoints_are_fetched_where_their_source_is_on_the_hub():
    config = composed("fetch", "task@suite.tasks=[digits,signs]", "backbone=mini")
    OmegaConf.set_struct(config, False)
    assert needs.needs_of(config) == []
    config.checkpoints = {"_target_": f"{__name__}.Source", "owner": "someone"}
    assert [need.repo for need in needs.needs_of(config)] == [
        "someone/mini_digits",
        "someone/mini_signs",
    ]


def test_a_run_is_told_what_it_lacks_and_the_command_that_fetches_it(hub, tmp_path):
    config = composed("bench", "suite=vision8", "task@suite.tasks=[cars,dtd]", "backbone=vit_b32")
    with pytest.raises(OSError, match=r"3 of the 3 things(.|\n)*Fetch it with: tsv-fetch"):
        needs.check_fetched(config)
    assert not hub.requests
    tsv(tmp_path, "fetch", *ARGUMENTS)
    needs.check_fetched(config)


@pytest.mark.slow  # a process of its own
def test_an_interrupted_fetch_is_taken_up_again(hub, tmp_path):
    """Stopped by Ctrl-C in the middle of a file of 12 MB, written in pieces of 10."""
    large = b"0123456789ab" * 2**20
    hub.add("model", WEIGHTS, {"open_clip_model.safetensors": large})
    hub.hold("open_clip_model.safetensors", after=11 * 2**20)
    home, line = tmp_path / "home", ["backbone=vit_b32"]
    with Started(tmp_path, loopback_hub.fetch, hub.url, home, line) as process:
        process.wait_until(lambda: any(p.stat().st_size for p in home.glob("hub/*/blobs/*.part")))
        process.send(signal.SIGINT)
        assert process.wait() == 130
    assert "tsv-fetch: interrupted. What was finished is kept; go on with:" in process.err

    hub.requests.clear()
    again = tsv(tmp_path, "fetch", *line)
    assert again.code == 0, again.err
    assert hub.contents() == [("open_clip_model.safetensors", f"bytes={10 * 2**20}-")]
    assert blob(tmp_path, large)


def test_datasets_itself_reads_from_the_loopback_hub(hub, tmp_path):
    """So that the stand-in is one: the library finds, lists and downloads as from the real hub."""
    rows = "".join(json.dumps({"label": label}) + "\n" for label in range(3))
    hub.add("dataset", "owner/rows", {"data/train.jsonl": rows})
    read = "import datasets; print(datasets.load_dataset('owner/rows', split='train')['label'][:])"
    found = subprocess.run(
        [sys.executable, "-c", read],
        env=hub.environment(tmp_path / "home"), capture_output=True, encoding="utf-8",
    )  # fmt: skip
    assert found.stdout.strip() == "[0, 1, 2]", found.stderr
