"""A weight a task: sums, means and signs as computed by hand."""

import pytest
import torch
from made_up.merges import finetuned, made, merge, pretrained, same, write_checkpoints
from made_up.vectors import random_vectors, read
from stand_ins.commands import tsv

from tsv_bench import methods
from tsv_bench.merging.scaling.task_weights import ScaledVector, Weighted, scaled
from tsv_bench.state_dicts.state_dict import open_state_dict
from tsv_bench.task_vectors.lazy import as_lazy

EXACT = {"rtol": 1e-12, "atol": 1e-12}  # float64, few additions
WEIGHTS = {"a": 0.3, "b": 0.7, "c": 1.1}


def served(method, vectors, rule, weights=WEIGHTS, **knobs):
    function = getattr(methods, method)
    weighted = Weighted(lambda given: function(given, **knobs), weights, rule)
    return read(weighted(vectors))[next(iter(vectors))]


def vectors_abc():
    torch.manual_seed(0)
    return dict(zip(WEIGHTS, random_vectors(3).values(), strict=True))


def by_hand(vectors, of):
    names = next(iter(vectors.values()))
    return {n: of([w * vectors[t][n] for t, w in WEIGHTS.items()]) for n in names}


def test_task_arithmetic_is_the_weighted_sum():
    vectors = vectors_abc()
    found = served("task_arithmetic", vectors, "scale")
    torch.testing.assert_close(found, by_hand(vectors, sum), **EXACT)


def test_weight_average_is_the_weighted_mean():
    vectors = vectors_abc()
    found = served("weight_average", vectors, "relative")
    expected = by_hand(vectors, lambda deltas: sum(deltas) / sum(WEIGHTS.values()))
    torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("rule", ["scale", "relative"])
def test_a_mean_of_ties_is_divided_by_the_weights_of_what_agrees(rule):
    """As mergekit's ties with normalize: signs are elected by weighted entries."""
    vectors = vectors_abc()
    found = served("ties", vectors, rule, density=1)

    def by_weight(deltas):
        stack = torch.stack(deltas)
        agree = stack.sign() == stack.sum(0).sign()
        weights = torch.tensor(list(WEIGHTS.values()), dtype=torch.float64)
        weights = weights.reshape(-1, *[1] * (stack.ndim - 1))
        divisor = (weights * (agree & (stack != 0))).sum(0)
        return (stack * agree).sum(0) / torch.where(divisor == 0, 1, divisor)

    torch.testing.assert_close(found, by_hand(vectors, by_weight), **EXACT)


def test_a_mean_of_knots_is_divided_by_the_weights_of_what_agrees():
    """Of diagonal matrices the shared directions are those of the rows."""
    values = {"a": [4.0, -1.0, 2.0], "b": [1.0, 3.0, -5.0], "c": [2.0, 2.0, 0.0]}
    vectors = {t: {"w": torch.diag(torch.tensor(v).double())} for t, v in values.items()}
    found = served("knots", vectors, "scale", density=1)["w"]
    second = (0.7 * 3 + 1.1 * 2) / (0.7 + 1.1)  # where b and c agree
    expected = [(0.3 * 4 + 0.7 * 1 + 1.1 * 2) / 2.1, second, -5.0]
    torch.testing.assert_close(
        found, torch.diag(torch.tensor(expected, dtype=torch.float64)), **EXACT
    )


def test_weights_of_tsv_merge_are_shares():
    """Of one task alone that counts, twice its own vector is kept in half of its directions."""
    vectors = dict(list(vectors_abc().items())[:2])
    nothing = {name: torch.zeros_like(delta) for name, delta in vectors["b"].items()}
    found = served("tsv_merge", vectors, "relative", {"a": 1.0, "b": 0.0})
    doubled = {name: 2 * delta for name, delta in vectors["a"].items()}
    expected = read(methods.tsv_merge({"a": doubled, "b": nothing}))["a"]
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)  # its own route: 1e-10 seen


def test_a_scaled_vector_is_read_in_rows_and_into():
    vector = as_lazy({"w": torch.randn(6, 3).bfloat16(), "s": torch.tensor(2.0)})
    twice = ScaledVector(vector, 2)
    assert twice.dtype("w") == torch.float32 and twice.reads_rows
    assert torch.equal(twice.rows("w", 2, 5), 2 * vector["w"][2:5].float())
    out = torch.empty(2, 3)
    twice.read_into("w", 0, 2, out)
    assert torch.equal(out, 2 * vector["w"][:2].float()) and twice["s"] == 4
    assert scaled(vector, 1) is vector


def test_triplets_are_kept_without_the_weight():
    kept = {}

    class Keeping(type(as_lazy({}))):
        def keep(self, name, triplets, kind):
            kept[name] = triplets

        def recall(self, name, rank, kind):
            return kept.get(name)

    vector = ScaledVector(Keeping({"w": torch.eye(2)}), 4.0)
    vector.keep("w", (torch.eye(2), torch.tensor([8.0, 4.0]), torch.eye(2)), "gram")
    assert kept["w"][1].tolist() == [2.0, 1.0]
    assert vector.recall("w", 2, "gram")[1].tolist() == [8.0, 4.0]
    kept.clear()
    backwards = ScaledVector(vector, -1.0)  # a singular value is not negative
    backwards.keep("w", (torch.eye(2), torch.ones(2), torch.eye(2)), "gram")
    assert not kept and backwards.recall("w", 2, "gram") is None


def test_the_command_writes_the_weighted_sum_at_alpha_one_and_says_so(tmp_path):
    write_checkpoints(tmp_path)
    result = merge(tmp_path, "w.safetensors", "method=task_arithmetic", "weights={a: 0.3, b: 0.7}")
    assert "alpha=1, as weights= scales" in result.err
    merge(tmp_path, "one.safetensors", "method=task_arithmetic", "weights={a: 1, b: 1}")
    [plain] = made(tmp_path, "task_arithmetic", "plain.safetensors")
    weighted, one = (open_state_dict(tmp_path / f"{n}.safetensors") for n in ("w", "one"))
    same(dict(one), plain)
    base, a, b = pretrained(), finetuned(0), finetuned(1)
    for name, tensor in base.items():
        if tensor.is_floating_point():
            expected = tensor + 0.3 * (a[name] - tensor) + 0.7 * (b[name] - tensor)
            torch.testing.assert_close(weighted[name], expected, rtol=0, atol=1e-6)
    assert '"weights": {"a": 0.3, "b": 0.7}' in weighted.metadata["tsv_bench"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["method=slerp", "weights={a: 1, b: 2}"], "no effect on method=slerp, which does not sum"),
        (["weights={a: 1}"], "the task 'b' has no weight. Give each of a, b one, as in weights="),
        (["weights={a: 1, b: 2, c: 1}"], "the task 'c' has a weight and no checkpoint"),
        (["weights={a: 1, b: x}"], "'x' of b is not a number"),
        (["weights=0.5"], "weights=0.5 does not say a weight of each task: as in weights='{a: 0.5"),
        (["weights={a: 0, b: 0}"], "all are 0, which leaves nothing"),
        (["method=weight_average", "weights={a: -1, b: 2}"], "-1 of a is below 0, and this method"),
    ],
)
def test_weights_that_cannot_be(tmp_path, arguments, message):
    write_checkpoints(tmp_path)
    paths = ["pretrained=base.safetensors", "finetuned={a: a.safetensors, b: b.safetensors}"]
    result = tsv(tmp_path, "merge", *paths, "output=out.safetensors", *arguments)
    assert result.code == 1 and message in result.err
