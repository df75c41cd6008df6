"""Methods that learn, by tsv-bench on two small tasks: the Run says what they saw."""

import signal

import pytest
from stand_ins.commands import SMALL, TASKS, begin_from, interrupt, numbers, runs, start, tsv

from tsv_bench.benchmark.runs import find_runs


@pytest.fixture(scope="module")
def folder(fine_tuned, tmp_path_factory):
    return begin_from(fine_tuned, tmp_path_factory.mktemp("learning"))


def test_coefficients_are_learned_and_the_run_says_of_what(folder):
    few = ("method=ada_merging", "method.steps=3", "method.batch_size=4", "method.images=9")
    done = tsv(folder, "bench", *few, *SMALL)
    assert done.code == 0, done.err
    header, row = [
        line for line in done.out.splitlines() if line.startswith(("method", "AdaMerging"))
    ]
    assert "data" in header and "9 unlabelled val" in row
    run = runs(folder)["ada_merging"]
    assert run.seen.text == "9 unlabelled val" and not run.task_known
    passes = 3 * 4 * len(TASKS)
    assert (run.seen.forward_passes, run.seen.backward_passes) == (passes, passes)
    assert run.seen.seconds > 0 and run.alpha == 1.0
    first = numbers(folder, "ada_merging")
    assert tsv(folder, "bench", *few, *SMALL, "overwrite=true").code == 0
    assert numbers(folder, "ada_merging") == first


def test_adapters_are_learned_on_a_learned_base_and_the_tasks_are_known(folder):
    few = ["method=surgery", "method.base=ada_merging", "method.base_alpha=1", "method.images=9"]
    knobs = "method.base_knobs={steps: 3, batch_size: 4}"
    done = tsv(folder, "bench", *few, knobs, "method.steps=4", *SMALL)
    assert done.code == 0, done.err
    found = [line for line in done.out.splitlines() if line.startswith(("method", "Surgery"))]
    assert "data" in found[0] and "9 unlabelled val" in found[1]
    run, base = (runs(folder)[method] for method in ("surgery", "ada_merging"))
    learned = 3 * 4 * len(TASKS)
    assert (run.seen.forward_passes, run.seen.backward_passes) == (2 * 9 * 2 + learned, learned)
    assert run.task_known and run.seen.text == "9 unlabelled val"
    adapter = 16 * 128 + 128 * 16
    assert run.stored_bytes == base.stored_bytes + len(TASKS) * 4 * adapter
    first = numbers(folder, "surgery")
    assert tsv(folder, "bench", *few, knobs, "method.steps=4", *SMALL, "overwrite=true").code == 0
    assert numbers(folder, "surgery") == first


def test_a_distillation_that_is_killed_goes_on_behind_its_last_block(folder, tmp_path):
    few = ["method=pro_distill", "method.images=4", "method.epochs=2", *SMALL]
    killed = begin_from(folder, tmp_path)
    third = ("tsv_bench.methods.learned.pro_distill", "block_coefficients", 3)
    with start(killed, *few, hold=third) as process:
        process.wait_until_held()
        process.send(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    [kept] = (killed / "runs").rglob("pro_distill*.unfinished")
    blocks = ["pro_distill-0.safetensors", "pro_distill-1.safetensors"]
    assert sorted(path.name for path in kept.iterdir()) == blocks
    for where in (killed, folder):
        done = tsv(where, "bench", *few)
        assert done.code == 0, done.err
    assert numbers(killed, "pro_distill") == numbers(folder, "pro_distill")
    found, expected = (runs(where)["pro_distill"] for where in (killed, folder))
    assert found.details == expected.details and len(found.details["pro_distill"]["loss"]) == 4
    assert found.seen.backward_passes == expected.seen.backward_passes and not kept.exists()


def test_images_are_routed_and_the_table_says_how_well(folder):
    few = ["method=free_merging", "method.images=9", "method.router_epochs=3"]
    done = tsv(folder, "bench", *few, *SMALL, "layout=leaderboard")
    assert done.code == 0, done.err
    assert "router chooses, train" in done.out
    assert "FREE-Merging: its router finds the task of" in done.out
    run = runs(folder)["free_merging"]
    assert not run.task_known and run.seen.text == "9 unlabelled train"
    assert run.seen.forward_passes == 9 * len(TASKS)
    for kind in (run.router.found, run.router.oracle, run.router.head_found):
        assert {t: s.total for t, s in kind.items()} == {t: s.total for t, s in run.test.items()}
    assert run.details["router"]["held_out"] == dict.fromkeys(TASKS, 2)
    first = numbers(folder, "free_merging")
    assert tsv(folder, "bench", *few, *SMALL, "overwrite=true").code == 0
    assert numbers(folder, "free_merging") == first


def test_a_router_is_for_one_scale(folder):
    done = tsv(
        folder,
        "bench",
        "method=twin_merging",
        "method.images=9",
        "method.alphas=[0.5, 1.0]",
        *SMALL,
    )
    assert done.code == 1 and "its alphas are [0.5, 1.0] and must be [1.0]" in done.err


ROUNDS = ["method=atm", "method.rounds=2", *SMALL]


@pytest.fixture(scope="module")
def in_rounds(fine_tuned, tmp_path_factory):
    """A folder in which ATM has run, and what the command said."""
    folder = begin_from(fine_tuned, tmp_path_factory.mktemp("rounds"))
    done = tsv(folder, "bench", *ROUNDS)
    assert done.code == 0, done.err
    return folder, done


def test_tasks_are_tuned_and_merged_in_rounds_and_the_run_says_what_it_took(in_rounds):
    folder, done = in_rounds
    assert "all labelled train" in done.out and "fine-tune shapes, round 2 of 2" in done.err
    run = runs(folder)["atm"]
    assert (run.seen.text, run.seen.images) == ("all labelled train", 64) and not run.task_known
    # The budget is that of the checkpoints: two epochs of two steps, in both rounds together.
    passes = len(TASKS) * 4 * 32
    assert (run.seen.forward_passes, run.seen.backward_passes) == (passes, passes)
    noted = run.details["rounds"]
    assert noted["steps"] == [0, 1, 2] and noted["images"] == dict.fromkeys(TASKS, 10)
    assert run.settings["finetuning"]["epochs"] == dict.fromkeys(TASKS, 2)
    assert not [*(folder / "runs").rglob("*.unfinished")]


def test_what_was_killed_in_a_round_is_ended_by_one_who_waited(in_rounds, fine_tuned, tmp_path):
    """As if it had not been; and of those who want the Run one works, and the others find it."""
    begin_from(fine_tuned, tmp_path)
    # Two steps of each task in the first round, then the first of the second round.
    sixth = ("tsv_bench.models.finetuning", "batch_rows", 6)
    with start(tmp_path, *ROUNDS, hold=sixth) as first:
        first.wait_until_held()
        with start(tmp_path, *ROUNDS) as second, start(tmp_path, *ROUNDS) as third:
            waiting = (second, third)
            for process in waiting:
                process.wait_until(lambda p=process: "waiting for process" in p.err)
            interrupt(first, "fine-tune shapes, round 2 of 2", signal.SIGKILL)
            [kept] = (tmp_path / "runs").rglob("*.unfinished")
            names = {path.name for path in kept.iterdir()}
            assert {"vector.safetensors", "report rounds.safetensors"} <= names
            assert [process.wait() for process in waiting] == [0, 0], second.err + third.err
    said = second.err + third.err
    assert "round 1 of 2" not in said and not kept.exists()
    assert sum("fine-tune shapes, round 2 of 2" in process.err for process in waiting) == 1
    assert numbers(tmp_path, "atm") == numbers(in_rounds[0], "atm")
    found, expected = runs(tmp_path)["atm"], runs(in_rounds[0])["atm"]
    assert found.details == expected.details
    assert found.seen.forward_passes == expected.seen.forward_passes


def test_rounds_on_validation_images_are_reported_on_the_others(in_rounds):
    folder, _ = in_rounds
    few = ["method.split=val", "method.images=0.6", "method.steps_per_round=1", "method.rounds=1"]
    more = ["method.start=task_arithmetic", "method.start_alpha=0.3", "seed=0"]
    folder = begin_from(folder, folder.with_name("on-validation"))
    done = tsv(folder, "bench", "method=atm", *few, *more, *SMALL, "paths.runs=others")
    assert done.code == 0 and "60% labelled val" in done.out, done.err
    [run] = [run for _, run in find_runs(folder / "others")]
    assert run.details["rounds"]["images"] == dict.fromkeys(TASKS, 4)
    assert (run.seen.images, run.seen.share) == (6, 0.6)
    done = tsv(folder, "bench", "method=atm", *few, "method.images=null", *SMALL, "paths.runs=all")
    assert done.code == 0 and "what it is worth on its way cannot be noted" in done.err
    [run] = [run for _, run in find_runs(folder / "all")]
    assert run.details == {} and run.seen.text == "all labelled val"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("method.rounds=0", "rounds=0 is not a whole number from 1 on: it is how often"),
        ("method.images=1.5", "images=1.5 is no share between 0 and 1"),
        ("method.start=tsv", "start='tsv' is not a method: ace, "),
        ("method.merge=ada_merging", "merge=ada_merging looks at data (bench), which atm has not"),
        ("method.labels=false", "fine_tunes=true: fine-tuning takes the network and labels"),
    ],
)
def test_a_mistake_is_one_message(in_rounds, change, message):
    folder, _ = in_rounds
    done = tsv(folder, "bench", *ROUNDS, change, "paths.runs=none")
    assert done.code == 1 and message in done.err and "Traceback" not in done.err, done.err
