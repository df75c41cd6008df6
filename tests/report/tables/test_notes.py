"""Notes say what rows do not have in common, and Runs on other images are refused."""

import pytest
from made_up.runs import make_run, make_vision_run

from tsv_bench.benchmark import published
from tsv_bench.report.tables.notes import check_same_images
from tsv_bench.report.tables.table import build_tables

pytestmark = pytest.mark.usefixtures("few_resamples")


def notes_of(*evaluated):
    (table,) = build_tables(evaluated)
    return table.notes


@pytest.mark.parametrize("what", ["data", "number", "tasks"])
def test_runs_on_different_images_name_the_task(what):
    first, _ = make_run("ties")
    second, _ = make_run("tsv_merge")
    check_same_images(first, second)
    if what == "data":
        second, _ = make_run("tsv_merge", data=second.data | {"land": "other"})
    elif what == "number":
        fewer, _ = make_run("tsv_merge", num_images=50)
        second, _ = make_run("tsv_merge", test=second.test | {"land": fewer.test["land"]})
    else:
        second, _ = make_run("tsv_merge", tasks=[t for t in second.tasks if t != "land"])
    with pytest.raises(ValueError, match="TIES and TSV-M cannot be compared on task 'land'"):
        check_same_images(first, second)


def test_rows_from_different_checkpoints_are_named():
    run, _ = make_run("ties")
    other = run.checkpoints | {"land": {"sha256": "other", "generation": "finetune"}}
    notes = notes_of(make_run("tsv_merge"), make_run("ties", checkpoints=other))
    assert any("different checkpoints, first 'land'" in note for note in notes)


def test_what_deviates_in_a_task_is_listed():
    what = {"land": "prompts of the paper", "digits": ""}
    runs = [make_run(method, variants=what) for method in ("ties", "tsv_merge", "individual")]
    assert notes_of(*runs) == ("Land: prompts of the paper.",)
    notes = notes_of(*runs[1:], make_run("ties"), make_run("task_arithmetic"))
    assert notes == ("Land: prompts of the paper (in TSV-M, Individual only).",)


def evaluated_in(precision):
    return {"evaluation": {"precision": precision, "normalizer": "own"}}


def test_rows_of_another_precision_are_named():
    old = make_run("ties")  # before there was a choice
    new = [make_run(m, settings=evaluated_in("float32")) for m in ("tsv_merge", "individual")]
    assert notes_of(old, *new) == ()
    rough = make_run("tsv_compress", settings=evaluated_in("bfloat16"))
    assert notes_of(old, *new, rough) == (
        "not all rows were evaluated in the same precision: TIES, TSV-M, Individual (float32); "
        "TSV-C (bfloat16).",
    )


def test_rows_normalized_by_others_are_named():
    theirs = {"normalizer_source": published.normalizer_source()}
    runs = [make_vision_run(method, **theirs) for method in ("ties", "tsv_merge")]
    divided, mixed = notes_of(*runs, make_vision_run("individual"))
    assert divided.startswith("TIES, TSV-M: normalized by accuracies of others (published, orig")
    assert mixed.startswith("not all rows were normalized by the same accuracies: TIES, TSV-M (pub")
    assert mixed.endswith("; Individual (fine-tuned here, same images).")
    assert len(notes_of(*runs)) == 1
