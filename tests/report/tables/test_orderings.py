"""The order of methods against the published one."""

from dataclasses import replace

import numpy as np
import pytest
from made_up.runs import make_run
from scipy import stats

from tsv_bench.benchmark import published
from tsv_bench.report.tables.orderings import find_orderings, kendall
from tsv_bench.report.tables.table import build_tables
from tsv_bench.scores import Score

NUM_IMAGES = 2000
# Merging methods that have figures on the original checkpoints.
MERGED = ("weight_average", "task_arithmetic", "consensus_ta", "ties", "tsv_merge", "iso_c")


def scored(method, accuracy, seed=0, **changes):
    """Make a Run with this accuracy on every task.

    A better Run has all images right that a worse one has.
    """
    run, bits = make_run("ties", seed, num_images=NUM_IMAGES)
    right = round(accuracy * NUM_IMAGES)
    correct = {task: np.arange(NUM_IMAGES) < right for task in bits}
    score = Score(accuracy=right / NUM_IMAGES, correct=right, total=NUM_IMAGES)
    fields = {"method": method, "label": method, "fingerprint": f"{method}{seed}", "knobs": {},
              "test": dict.fromkeys(correct, score), "absolute": right / NUM_IMAGES}  # fmt: skip
    return replace(run, **(fields | changes)), correct


def table_of(accuracies, *more):
    runs = [scored(method, accuracy) for method, accuracy in accuracies.items()]
    [table] = build_tables([*runs, *more])
    return table


def original(methods=MERGED):
    figures = published.averages("vit_b32", "vision8")["original"]
    return {method: figures[method].absolute for method in methods}


def against(table, generation="original"):
    [found] = [o for o in find_orderings(table) if o.generation == generation]
    return found


@pytest.mark.parametrize("num", [3, 5, 8])
def test_tau_and_its_exact_p_are_scipys(num):
    rng = np.random.default_rng(num)
    for _ in range(5):
        x, y = rng.normal(size=num), rng.normal(size=num)
        expected = stats.kendalltau(x, y, method="exact")
        found = kendall(x, y)
        assert found.value == pytest.approx(expected.statistic)
        assert found.p == pytest.approx(expected.pvalue)


def test_tau_of_more_methods_than_can_be_enumerated():
    rng = np.random.default_rng(0)
    x = rng.normal(size=12)
    y = x + rng.normal(size=12)
    expected = stats.kendalltau(x, y, method="exact")
    error = 3 * np.sqrt(expected.pvalue / 100_000)
    assert kendall(x, y).p == pytest.approx(expected.pvalue, abs=error + 1e-5)


def test_tau_with_ties_is_tau_b():
    x, y = [1, 2, 3, 4, 5], [1, 3, 3, 2, 5]
    assert kendall(x, y).value == pytest.approx(stats.kendalltau(x, y).statistic)
    assert kendall(y, x).p == pytest.approx(kendall(x, y).p)
    nothing = kendall([1, 2, 3], [2, 2, 2])
    assert np.isnan(nothing.value) and nothing.p == 1


def test_the_published_order_agrees_with_itself():
    found = against(table_of(original()))
    # Among the 6! orders of six methods only this one and its reverse are as extreme.
    assert (found.merged.value, found.merged.num) == (1, 6)
    assert found.merged.p == pytest.approx(2 / 720)
    assert (found.num_pairs, found.num_reversed, found.reversed) == (15, 0, ())


def test_pairs_that_differ_beyond_chance_are_named():
    accuracies = original()
    accuracies["ties"], accuracies["tsv_merge"] = 0.80, 0.70  # far apart
    found = against(table_of(accuracies))
    names = [(one.better.method, one.worse.method) for one in found.reversed]
    assert ("ties", "tsv_merge") in names and ("consensus_ta", "tsv_merge") in names
    first = found.reversed[0]
    assert (first.better.method, first.worse.method) == ("ties", "tsv_merge")
    assert first.here.value == pytest.approx(0.10)
    assert first.published == pytest.approx(0.751 - 0.8586)
    assert found.merged.value < 1


def test_a_pair_the_other_way_round_by_chance_is_counted_not_named():
    """Iso-C is published 0.4 above TSV-M. Here each has 100 images a task right that the other has
    not, and TSV-M has one more."""
    runs = []
    for method, accuracy in original().items():
        run, correct = scored(method, accuracy)
        if method in ("tsv_merge", "iso_c"):
            first, last = (0, 1601) if method == "tsv_merge" else (100, 1700)
            bits = {t: (np.arange(2000) >= first) & (np.arange(2000) < last) for t in correct}
            score = Score(accuracy=(last - first) / 2000, correct=last - first, total=2000)
            run = replace(run, test=dict.fromkeys(bits, score), absolute=score.accuracy)
            correct = bits
        runs.append((run, correct))
    [table] = build_tables(runs)
    found = against(table)
    assert found.num_reversed == 1 and found.reversed == ()
    assert found.merged.value == pytest.approx(1 - 2 / 15)


def test_references_and_methods_told_the_task_are_not_among_the_merged():
    accuracies = original() | {"zero_shot": 0.48, "individual": 0.93}
    told = scored("tsv_compress", 0.92, task_known=True)
    found = against(table_of(accuracies, told))
    assert (found.merged.num, found.all.num) == (6, 9)


def test_generations_are_not_mixed():
    accuracies = original() | {"wudi": 0.87, "pcb": 0.6, "cart": 0.85}
    table = table_of(accuracies)
    older = against(table, "ilharco")
    # TA, TIES, Consensus TA and Iso-C are in both, TSV-M in the first only.
    assert older.merged.num == 7 and against(table).merged.num == 6
    assert older.num_pairs == 20, "TIES and Consensus TA are equal there"
    assert {o.generation for o in find_orderings(table)} == {"original", "ilharco"}


def test_rows_of_other_knobs_do_not_count():
    accuracies = original(("task_arithmetic", "iso_c"))
    with_others = scored("ties", 0.9, knobs={"density": 1.0})
    assert find_orderings(table_of(accuracies, with_others)) == []
    found = against(table_of(accuracies, with_others, scored("ties", 0.8, fingerprint="other",
                                                             knobs={"density": 0.2})))  # fmt: skip
    assert found.merged.num == 3


def test_too_few_methods_have_no_order():
    assert find_orderings(table_of(original(("ties", "iso_c")))) == []
    table = table_of(original(("ties", "iso_c")) | {"individual": 0.9})
    assert against(table).merged is None and against(table).all.num == 3


def test_lost_images_leave_the_tau_and_name_no_pair():
    accuracies = original()
    accuracies["ties"] = 0.9
    runs = [(run, None) for run, _ in (scored(m, a) for m, a in accuracies.items())]
    [table] = build_tables(runs)
    found = against(table)
    assert found.num_reversed == 2 and found.reversed == ()
