import json
import logging
import struct
from pathlib import Path

import pytest
import wandb
from PIL import Image
from wandb.proto.wandb_internal_pb2 import Record

from tsv_bench.runs import Run, Score
from tsv_bench.tracking import NoTracker, WandbTracker

RUN = Run(
    backbone="mini",
    suite="mini2",
    method="tsv_merge",
    label="TSV-M",
    seed=0,
    knobs={"rank_fraction": None, "polar": "svd"},
    tasks={"digits": "Digits", "shapes": "Shapes"},
    alpha=0.2,
    alpha_curve=[
        {"alpha": 0.1, "normalized": 0.5},
        {"alpha": 0.2, "normalized": 0.75},
        {"alpha": 0.3, "normalized": 0.625},
    ],
    test={
        "digits": Score(accuracy=0.5, correct=5, total=10),
        "shapes": Score(accuracy=0.75, correct=15, total=20),
    },
    val={
        "digits": Score(accuracy=0.5, correct=5, total=10),
        "shapes": Score(accuracy=0.5, correct=5, total=10),
    },
    absolute=0.625,
    normalized=0.8125,
    normalizer={"digits": 0.625, "shapes": 0.9375},
    normalizer_source="this project's own fine-tuned models",
    seconds={"merge": 1.5, "test": 2.5},
    peak_memory=1 << 30,
    checkpoints={"pretrained": {"sha256": "ab" * 32, "generation": "finetune"}},
    data={"digits": "123", "shapes": "456"},
    settings={"suite": {"name": "mini2"}, "alphas": [0.1, 0.2, 0.3]},
    fingerprint="0123456789ab",
    versions={"torch": "2"},
    commit="c0ffee",
    machine="two cores",
    created="2025-01-01T00:00:00+00:00",
)


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """wandb keeps no file in, and takes no login from, the home of whoever runs the tests."""
    for name in ("DATA", "CACHE", "CONFIG", "ARTIFACT"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name.lower()))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


def tracker(folder, **settings):
    defaults = {"project": "tests", "entity": None, "group": None, "mode": None, "dir": folder}
    return WandbTracker(**(defaults | settings))


def records(path):
    """The protobuf records of a .wandb file: 7 bytes, then LevelDB's log format, 32 KiB blocks."""
    content, position, parts = path.read_bytes(), 7, b""
    assert content.startswith(b":W&B")
    while position < len(content):
        left = 32768 - position % 32768
        if left < 7:  # no room for a header: the block is padded
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        position += 7
        parts += content[position : position + length]
        position += length
        if kind in (1, 4):  # a full record, or the last part of one
            yield Record.FromString(parts)
            parts = b""


def values(items):
    """{"a/b": value}; keys come as one string or as a path of them."""
    return {
        item.key or ".".join(item.nested_key): json.loads(item.value_json)
        for item in items
        if not (item.key or item.nested_key[0]).startswith("_")
    }


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """(folder, records) of one Run logged with WANDB_MODE=offline, without account or network."""
    folder = tmp_path_factory.mktemp("wandb")
    plot = folder / "accuracy.png"
    Image.new("RGB", (4, 3)).save(plot)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_DATA_DIR", str(folder))
        tracker(folder).log_run(RUN, [plot])
        wandb.teardown()  # its own process ends, and only then is the file complete
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    return file.parent / "files", list(records(file))


def of_type(logged, name):
    return [getattr(r, name) for r in logged[1] if r.WhichOneof("record_type") == name]


def test_offline_run_holds_the_configuration(logged):
    (run,) = of_type(logged, "run")
    assert (run.project, run.run_group, run.display_name) == (
        "tests",
        "mini-mini2",
        "tsv_merge-0123456789ab",
    )
    config = values(run.config.update)
    assert config["settings"] == RUN.settings
    assert config["knobs"] == RUN.knobs
    assert (config["method"], config["seed"], config["commit"]) == ("tsv_merge", 0, "c0ffee")


def test_offline_run_holds_the_alpha_curve_over_alpha(logged):
    history = [values(entry.item) for entry in of_type(logged, "history")]
    curve = [
        {"alpha": row["alpha_curve/alpha"], "normalized": row["alpha_curve/normalized"]}
        for row in history
        if "alpha_curve/alpha" in row
    ]
    assert curve == RUN.alpha_curve
    axes = {metric.name: metric.step_metric for metric in of_type(logged, "metric")}
    assert axes["alpha_curve/normalized"] == "alpha_curve/alpha"


def test_offline_run_holds_the_summary(logged):
    summary = {}
    for record in of_type(logged, "summary"):
        summary |= values(record.update)
    expected = {"absolute": 0.625, "normalized": 0.8125, "alpha": 0.2, "peak_memory": 1 << 30}
    expected |= {"seconds/merge": 1.5, "seconds/test": 2.5}
    assert {name: summary.get(name) for name in expected} == expected


def test_offline_run_holds_the_tables_and_the_plot(logged):
    files, _ = logged
    history = {}
    for entry in of_type(logged, "history"):
        history |= values(entry.item)
    tasks = json.loads((files / history["tasks.path"]).read_text())
    assert tasks["columns"] == ["task", "accuracy", "correct", "total", "normalized"]
    assert tasks["data"] == [["digits", 0.5, 5, 10, 0.8], ["shapes", 0.75, 15, 20, 0.8]]
    curve = json.loads((files / history["alpha_curve/table.path"]).read_text())
    assert curve["data"] == [[0.1, 0.5], [0.2, 0.75], [0.3, 0.625]]
    with Image.open(files / history["plots/accuracy.path"]) as image:
        assert image.size == (4, 3)


def test_missing_login_warns_and_goes_on(tmp_path, caplog):
    tracker(tmp_path, mode="online").log_run(RUN, [])
    assert "W&B did not take the run of tsv_merge on mini2" in caplog.text
    assert "results are saved all the same" in caplog.text


def test_unwritable_folder_warns_and_goes_on(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    tracker(tmp_path / "file" / "wandb").log_run(RUN, [])
    assert "NotADirectoryError" in caplog.text


def test_missing_plot_warns_and_the_next_run_is_logged(tmp_path, caplog):
    tracker(tmp_path).log_run(RUN, [Path("missing.png")])
    assert "missing.png" in caplog.text
    caplog.clear()
    tracker(tmp_path).log_run(RUN, [])
    assert not [record for record in caplog.records if record.name.startswith("tsv_bench")]
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 2


def test_interrupt_is_not_a_failure_of_the_tracker(tmp_path, monkeypatch):
    def interrupted(**settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(wandb, "init", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tracker(tmp_path).log_run(RUN, [])


def test_unknown_mode_is_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="online, offline or disabled"):
        tracker(tmp_path, mode="ofline")


def test_no_tracker_leaves_no_trace(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.DEBUG):
        NoTracker().log_run(RUN, [])
    assert not list(tmp_path.iterdir()) and not caplog.records
