"""The normalizer in the Runs of a folder: the same files, the newest, across suites."""

from dataclasses import replace

import pytest
from made_up.runs import make_run, make_vision_run

from tsv_bench.benchmark import published
from tsv_bench.benchmark.normalizer import find_normalizer
from tsv_bench.benchmark.runs import save_run
from tsv_bench.scores import Score


def sought(run, **changes):
    hashes = {name: checkpoint["sha256"] for name, checkpoint in run.checkpoints.items()}
    return {"backbone": run.backbone, "checkpoints": hashes, "data": run.data,
            "variants": run.variants} | changes  # fmt: skip


def test_normalizer_is_found_in_the_run_of_the_same_files(tmp_path):
    individual, correct = make_run("individual")
    save_run(individual, correct, tmp_path)
    save_run(*make_run("ties"), tmp_path)
    found = find_normalizer(tmp_path, **sought(make_run("ties")[0]))
    assert found == {task: {"test": score} for task, score in individual.test.items()}


def test_normalizer_is_found_across_suites_and_with_its_validation(tmp_path):
    val = {"cars": Score(accuracy=0.5, correct=1, total=2)}
    individual, correct = make_vision_run("individual", "vision14")
    save_run(replace(individual, val=val), correct, tmp_path)
    found = find_normalizer(tmp_path, **sought(make_vision_run("ties", "vision8")[0]))
    assert list(found) == published.suites()["vision8"]
    assert found["cars"] == {"test": individual.test["cars"], "val": val["cars"]}
    assert found["dtd"] == {"test": individual.test["dtd"]}


@pytest.mark.parametrize("what", ["data", "checkpoints", "variants"])
def test_normalizer_of_another_file_or_variant_does_not_count(tmp_path, what):
    save_run(*make_run("individual"), tmp_path)
    wanted = sought(make_run("ties")[0])
    wanted[what] = wanted[what] | {"land": "another"}
    assert set(find_normalizer(tmp_path, **wanted)) == set(make_run()[0].tasks) - {"land"}


def test_normalizer_of_another_pretrained_backbone_does_not_count(tmp_path):
    save_run(*make_run("individual"), tmp_path)
    run, _ = make_run("ties")
    hashes = sought(run)["checkpoints"] | {"pretrained": "another"}
    assert find_normalizer(tmp_path, **sought(run, checkpoints=hashes)) == {}
    assert find_normalizer(tmp_path / "none", **sought(run)) == {}


def test_the_newest_normalizer_counts(tmp_path):
    for number, created in enumerate(("2026-01-02", "2026-01-03", "2026-01-01")):
        run, correct = make_run("individual", num_images=100 + number)
        save_run(replace(run, created=created, fingerprint=str(number)), correct, tmp_path)
    found = find_normalizer(tmp_path, **sought(make_run("ties")[0]))
    assert {scores["test"].total for scores in found.values()} == {101}
