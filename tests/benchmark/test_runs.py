"""Runs on disk: an exact round trip, no half-written file."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from made_up.runs import make_run

from tsv_bench.benchmark.runs import Seen, find_runs, load_correct, load_run, save_run
from tsv_bench.files.atomic import temporary_beside


def test_round_trip_is_exact(tmp_path):
    # 1/3 and the like need all 17 digits; -0.0 and a denormal lose their sign or value easily.
    run, correct = make_run(seconds={"merge": 1 / 3, "alpha": 5e-324, "test": -0.0})
    path = save_run(run, correct, tmp_path)
    assert path == tmp_path / "mini" / "mini8" / f"tsv_merge-{run.fingerprint}.json"
    assert load_run(path) == run
    assert str(load_run(path).seconds["test"]) == "-0.0"
    loaded = load_correct(path)
    assert list(loaded) == list(correct)
    for task, bits in correct.items():
        assert loaded[task].dtype == bool
        np.testing.assert_array_equal(loaded[task], bits)


def test_order_of_tasks_survives(tmp_path):
    run, correct = make_run(tasks=("street", "digits", "land"))
    assert list(load_run(save_run(run, correct, tmp_path)).tasks) == ["street", "digits", "land"]


def test_a_fingerprint_is_found_under_any_name_and_only_its_file_is_read(tmp_path, caplog):
    for method in ("ties", "tsv_merge"):
        run, correct = make_run(method)
        path = save_run(run, correct, tmp_path)
    (path.parent / "ties-damaged.json").write_text("{")
    moved = path.rename(path.with_name("another.json"))
    assert find_runs(tmp_path, fingerprint=run.fingerprint) == [(moved, run)] and not caplog.text
    (path.parent / f"ties-{run.fingerprint}.json").write_text("{")
    assert find_runs(tmp_path, fingerprint=run.fingerprint) == [(moved, run)]
    assert "skipped" in caplog.text


def test_same_settings_replace(tmp_path):
    run, correct = make_run(commit="old")
    save_run(run, correct, tmp_path)
    run, correct = make_run(commit="new")
    path = save_run(run, correct, tmp_path)
    with temporary_beside(path) as temporary:  # another process replaces it
        shutil.copy(path, temporary)
        assert [(path, run)] == find_runs(tmp_path)
    assert sorted(p.name for p in path.parent.iterdir()) == [
        path.name,
        path.with_suffix(".npz").name,
    ]


@pytest.mark.parametrize("dies_at", ["savez_compressed", "replace_json"])
def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch, dies_at):
    old, correct = make_run(commit="old")
    path = save_run(old, correct, tmp_path)

    def full_disk(file, **arrays):
        file.write(b"half")
        raise OSError("no space left on device")

    def no_json(source, target):
        if str(target).endswith(".json"):
            raise OSError("no space left on device")
        replace(source, target)

    replace = os.replace
    if dies_at == "savez_compressed":
        monkeypatch.setattr(np, "savez_compressed", full_disk)
    else:
        monkeypatch.setattr(os, "replace", no_json)
    new, _ = make_run(commit="new")
    with pytest.raises(OSError, match="no space left"):
        save_run(new, correct, tmp_path)
    assert load_run(path) == old
    assert load_correct(path).keys() == correct.keys()
    assert len(list(path.parent.iterdir())) == 2, "temporary files stay behind"


def test_nan_is_not_json(tmp_path):
    run, correct = make_run(normalized=float("nan"))
    with pytest.raises(ValueError, match="JSON"):
        save_run(run, correct, tmp_path)
    assert not list(tmp_path.rglob("*"))


def test_counts_must_be_those_of_the_bits(tmp_path):
    run, correct = make_run()
    correct["land"] = ~correct["land"]
    with pytest.raises(AssertionError, match="land"):
        save_run(run, correct, tmp_path)


def test_find_runs_filters(tmp_path):
    for method in ("ties", "tsv_merge"):
        for seed in (0, 1):
            save_run(*make_run(method, seed), tmp_path)
    assert len(find_runs(tmp_path)) == 4
    assert [r.seed for _, r in find_runs(tmp_path, method="ties")] == [0, 1]
    assert [r.method for _, r in find_runs(tmp_path, seed=1)] == ["ties", "tsv_merge"]
    assert find_runs(tmp_path, backbone="vit_b32") == []


def test_a_folder_that_is_not_there_holds_no_runs(tmp_path):
    assert find_runs(tmp_path / "runs") == []


def test_runs_of_before_there_were_variants_load(tmp_path):
    run, correct = make_run(variants={"land": "prompts of the paper"})
    path = save_run(run, correct, tmp_path)
    assert load_run(path).variants == {"land": "prompts of the paper"}
    content = json.loads(path.read_text())
    del content["variants"]
    path.write_text(json.dumps(content))
    assert load_run(path) == replace(run, variants={})


def test_what_a_method_saw_is_a_number_of_images_a_share_or_all():
    passes = {"forward_passes": 1, "backward_passes": 1, "seconds": 1.0}
    texts = {None: "64 labelled val", 0.8: "80% labelled val", 0.125: "12.5% labelled val",
             1.0: "all labelled val"}  # fmt: skip
    for share, text in texts.items():
        seen = Seen(split="val", images=64, labels=True, share=share, **passes)
        assert (seen.text, seen.kind) == (text, "labelled val")
    assert Seen(split="train", images=64, labels=True, share=1.0, **passes).kind == "train"
