import json
import logging
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import wandb
from made_up.tracked import MODELS, PRETRAINED, RUN, SERVED, tracker
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from stand_ins.wandb_files import of_type, own_folders, records, summary, values

from tsv_bench.benchmark.weights import write_weights
from tsv_bench.methods.forms import Adapted, Routed
from tsv_bench.methods.learned.adapters import AdaptedVector, Adapter
from tsv_bench.methods.routed.experts import Experts
from tsv_bench.methods.routed.feature_router import FeatureRouter
from tsv_bench.methods.routed.routed_vector import Routing
from tsv_bench.report.tracking import NoTracker, where


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    own_folders(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """Log one Run with WANDB_MODE=offline, without account or network: (folder, records)."""
    folder = tmp_path_factory.mktemp("wandb")
    plot = folder / "accuracy.png"
    Image.new("RGB", (4, 3)).save(plot)
    with pytest.MonkeyPatch.context() as patch:
        own_folders(patch, folder)
        tracker(folder).log_run(RUN, [plot])
        wandb.teardown()  # its own process ends, and only then is the file complete
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    return file.parent / "files", list(records(file))


def test_offline_run_holds_the_configuration(logged):
    (run,) = of_type(logged[1], "run")
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
    history = [values(entry.item) for entry in of_type(logged[1], "history")]
    curve = [
        {"alpha": row["alpha_curve/alpha"], "normalized": row["alpha_curve/normalized"]}
        for row in history
        if "alpha_curve/alpha" in row
    ]
    assert curve == RUN.alpha_curve
    axes = {metric.name: metric.step_metric for metric in of_type(logged[1], "metric")}
    assert axes["alpha_curve/normalized"] == "alpha_curve/alpha"


def test_offline_run_draws_the_alpha_curve_as_a_line(logged):
    updates = [item for config in of_type(logged[1], "config") for item in config.update]
    path = ["_wandb", "visualize", "alpha_curve/line"]
    [line] = [json.loads(item.value_json) for item in updates if list(item.nested_key) == path]
    assert line["panel_config"]["panelDefId"] == "wandb/line/v0"
    fields = line["panel_config"]["fieldSettings"]
    assert (fields["x"], fields["y"]) == ("alpha", "normalized")


def test_offline_run_holds_the_summary(logged):
    found = summary(logged[1])
    expected = {"absolute": 0.625, "normalized": 0.8125, "alpha": 0.2, "peak_memory": 1 << 30}
    expected |= {"seconds/merge": 1.5, "seconds/test": 2.5, "validation": 0.75}
    assert {name: found.get(name) for name in expected} == expected


def test_offline_run_holds_the_tables_and_the_plot(logged):
    files, _ = logged
    history = {}
    for entry in of_type(logged[1], "history"):
        history |= values(entry.item)
    tasks = json.loads((files / history["tasks.path"]).read_text())
    assert tasks["columns"] == ["task", "accuracy", "correct", "total", "normalized"]
    assert tasks["data"] == [["digits", 0.5, 5, 10, 0.8], ["shapes", 0.75, 15, 20, 0.8]]
    curve = json.loads((files / history["alpha_curve/line_table.path"]).read_text())
    assert curve["columns"] == ["alpha", "normalized"]
    assert curve["data"] == [[0.1, 0.5], [0.2, 0.75], [0.3, 0.625]]
    with Image.open(files / history["plots/accuracy.path"]) as image:
        assert image.size == (4, 3)


def only_run(folder):
    """Return (run record, all records) of the one offline run below the folder."""
    wandb.teardown()
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    found = list(records(file))
    (run,) = of_type(found, "run")
    return run, found


def test_choices_are_group_and_tags(logged, tmp_path):
    (plain,) = of_type(logged[1], "run")
    assert (plain.run_group, plain.job_type) == ("mini-mini2", "tsv_merge")
    assert list(plain.tags) == ["mini", "mini2", "tsv_merge", "finetune", "other"]
    tracker(tmp_path, experiment="embedded", tags=["mine", "mini"]).log_run(RUN, [])
    run, _ = only_run(tmp_path)
    assert run.run_group == "embedded-mini-mini2"
    assert list(run.tags) == [*plain.tags, "embedded", "mine"]


def test_a_group_of_ones_own_is_kept(tmp_path):
    tracker(tmp_path, group="mine", experiment="embedded").log_run(RUN, [])
    assert only_run(tmp_path)[0].run_group == "mine"


@pytest.mark.parametrize("one", [True, False], ids=["merged", "each its own"])
def test_the_artifact_holds_the_evaluated_weights_and_how_they_were_made(one, tmp_path):
    served = dict.fromkeys(SERVED, SERVED["digits"]) if one else SERVED
    weights = partial(write_weights, RUN, PRETRAINED, served)
    tracker(tmp_path, artifact=True).log_run(RUN, [], weights)
    _, found = only_run(tmp_path)
    [artifact] = [a for a in of_type(found, "artifact") if a.type == "model"]
    about = json.loads(artifact.metadata)
    assert (about["method"], about["knobs"], about["alpha"]) == ("tsv_merge", RUN.knobs, 0.2)
    assert about["checkpoints"] == RUN.checkpoints
    stored = {entry.path: entry.local_path for entry in artifact.manifest.contents}
    names = {"tsv_merge": "digits"} if one else {task: task for task in SERVED}
    assert set(stored) == {f"{name}.safetensors" for name in names}
    for name, task in names.items():
        with safe_open(stored[f"{name}.safetensors"], "pt") as file:
            found = {layer: file.get_tensor(layer).tolist() for layer in file.keys()}
            metadata = json.loads(file.metadata()["tsv_bench"])
        assert found == {"w": MODELS[task], "steps": 7}
        assert metadata == about | ({} if one else {"task": task})
    # The files that were written to be copied are gone.
    assert not list(tmp_path.glob("wandb/**/*.safetensors"))


def test_adapters_are_a_file_beside_the_weights_they_belong_to(tmp_path):
    adapters = {
        task: Adapter(torch.full((1, 2), float(n)), torch.ones(2, 1))
        for n, task in enumerate(SERVED, 5)
    }
    vectors = dict.fromkeys(SERVED, AdaptedVector(SERVED["digits"], lambda _: adapters))
    paths = write_weights(RUN, PRETRAINED, Adapted(vectors, SERVED, "it"), tmp_path)
    assert [path.name for path in paths] == [
        "tsv_merge.safetensors",
        "tsv_merge.adapters.safetensors",
    ]
    with safe_open(paths[1], "pt") as file:
        found = {name: file.get_tensor(name).tolist() for name in file.keys()}
        assert json.loads(file.metadata()["tsv_bench"])["fingerprint"] == RUN.fingerprint
    assert found == {
        "digits.down": [[5, 5]], "digits.up": [[1], [1]],
        "shapes.down": [[6, 6]], "shapes.up": [[1], [1]],
    }  # fmt: skip


def test_of_a_router_the_shared_model_experts_and_the_router_are_files(tmp_path):
    shared, layer = {"w": torch.tensor([[0.5, 0.5]])}, "w"
    router = FeatureRouter(
        list(SERVED), "shared", [(torch.ones(2, 3), torch.zeros(2))],
        Experts({layer: (torch.ones(2, 4, 1), torch.ones(2, 1, 3))}),
    )  # fmt: skip
    routing = Routing(shared, lambda shared, task: SERVED[task], lambda shared: router, lambda: 0)
    served = Routed(routing.vectors(list(SERVED)), SERVED, "it")
    paths = write_weights(RUN, PRETRAINED, served, tmp_path)
    assert [path.name for path in paths] == [
        "digits.safetensors", "shapes.safetensors",
        "tsv_merge.safetensors", "tsv_merge.router.safetensors",
    ]  # fmt: skip
    torch.testing.assert_close(load_file(paths[2])["w"], torch.tensor([[1.1, 2.1]]))
    assert set(load_file(paths[3])) == {
        "0.weight", "0.bias", f"{layer}.experts.up", f"{layer}.experts.down",
    }  # fmt: skip


@pytest.mark.parametrize("settings", [{}, {"artifact": True, "mode": "disabled"}], ids=str)
def test_no_weights_are_written_that_nobody_asked_for(settings, tmp_path, caplog):
    tracker(tmp_path, **settings).log_run(RUN, [], lambda folder: pytest.fail("written"))
    assert "did not take" not in caplog.text


def test_a_run_that_was_there_has_no_artifact_and_says_why(tmp_path, caplog):
    tracker(tmp_path, artifact=True).log_run(RUN, [], None)
    assert "overwrite=true evaluates it again" in caplog.text
    assert summary(only_run(tmp_path)[1])["absolute"] == RUN.absolute


def test_an_offline_run_says_where_it_is_and_how_to_upload_it(tmp_path, caplog):
    caplog.set_level(logging.INFO, "tsv_bench")
    tracker(tmp_path).log_run(RUN, [])
    [message] = [record.getMessage() for record in caplog.records if "W&B" in record.message]
    folder = message.rpartition("Upload it with: wandb sync ")[2]
    assert [*Path(folder).glob("*.wandb")] and f"W&B, offline: {folder}. " in message


def test_an_online_run_is_a_link_and_a_disabled_one_is_nowhere():
    online = SimpleNamespace(disabled=False, offline=False, url="https://wandb.ai/me/it/runs/1")
    assert where(online) == "W&B: https://wandb.ai/me/it/runs/1"
    assert where(SimpleNamespace(disabled=True, offline=True)) == ""


@pytest.fixture
def in_sweep(monkeypatch):
    """A function that says what this process's sweep goes by; it returns what W&B is asked."""

    def sweep_by(metric):
        asked = []
        found = SimpleNamespace(config={"metric": metric} if metric else {})
        api = SimpleNamespace(sweep=lambda path: asked.append(path) or found)
        monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
        monkeypatch.setattr(wandb, "Api", lambda **settings: api)
        return asked

    return sweep_by


@pytest.mark.parametrize("name", ["normalized", "absolute"])
def test_a_sweep_that_goes_by_test_images_is_refused(name, in_sweep, tmp_path):
    asked = in_sweep({"name": name, "goal": "maximize"})
    with pytest.raises(ValueError, match=f"goes by {name}, which is measured on test images"):
        tracker(tmp_path, mode="online", entity="me").check()
    assert asked == ["me/tests/abc"]
    tracker(tmp_path, mode="offline").check()  # none can be asked
    assert len(asked) == 1


@pytest.mark.parametrize("metric", [{"name": "validation"}, {"name": "seconds/merge"}, None])
def test_a_sweep_that_goes_by_something_else_is_not(metric, in_sweep, tmp_path, caplog):
    assert in_sweep(metric) == []
    tracker(tmp_path, mode="online").check()
    assert not caplog.records


def test_a_sweep_that_cannot_be_asked_for_is_a_warning(in_sweep, tmp_path, monkeypatch, caplog):
    in_sweep(None)
    monkeypatch.setattr(wandb, "Api", raising)
    tracker(tmp_path, mode="online").check()
    assert "cannot ask W&B what the sweep goes by: no network" in caplog.text


def raising(**settings):
    raise wandb.Error("no network")


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
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not [record for record in warned if record.name.startswith("tsv_bench")]
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 2


def test_interrupt_is_not_a_failure_of_the_tracker(tmp_path, monkeypatch):
    def interrupted(**settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(wandb, "init", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tracker(tmp_path).log_run(RUN, [])


def test_an_artifact_is_wanted_or_not(tmp_path):
    with pytest.raises(ValueError, match="tracker.artifact='model' is neither true nor false"):
        tracker(tmp_path, artifact="model")


def test_unknown_mode_is_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="online, offline or disabled"):
        tracker(tmp_path, mode="ofline")


def test_no_tracker_leaves_no_trace(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.DEBUG):
        NoTracker().log_run(RUN, [])
    assert not list(tmp_path.iterdir()) and not caplog.records
