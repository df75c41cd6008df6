"""What a method serves is made sure of, whatever the vectors are."""

from functools import partial

import pytest
import torch

from tsv_bench import methods
from tsv_bench.methods.forms import Each, LowRank, Masked, Shared
from tsv_bench.methods.served import form_by_trial, served_by
from tsv_bench.task_vectors.lazy import LazyVector, Part, as_lazy
from tsv_bench.task_vectors.merge import map_layers


def test_the_form_is_told_by_a_trial_without_warnings(caplog):
    consensus = partial(methods.consensus_ta, mask_lambda=0.4, min_tasks=3)
    assert form_by_trial(consensus, ["a", "b", "c"]) is Shared
    assert form_by_trial(partial(methods.tall_mask_ta, mask_lambda=0.4), ["a"]) is Masked
    by_task = partial(methods.tall_mask_ta, mask_lambda={"a": 0.4})
    assert form_by_trial(by_task, ["a"]) is Masked
    assert form_by_trial(methods.individual, ["a"]) is Each
    assert form_by_trial(methods.tsv_merge, ["a"]) is Shared
    assert form_by_trial(methods.tsv_compress, ["a"]) is LowRank
    even = partial(methods.lata, drop="threshold", threshold=0.5)  # warns where all is alike
    assert form_by_trial(even, ["a", "b"]) is Shared
    assert form_by_trial(consensus, ["a"]) is Shared
    assert not caplog.records


class TestServed:
    """A vector that is there is checked as it is served, a lazy one as it is computed."""

    vectors = {task: {"x": torch.ones(4, 2)} for task in "ab"}

    def served(self, *parts):
        """Of a lazy vector for both tasks: first rows, and what comes of the parts there."""
        made = [Part("x", start, 8, lambda: None, lambda _, t=t: t) for start, t in parts]
        vector = LazyVector([as_lazy(self.vectors["a"])], lambda name: made)
        return served_by(lambda given: dict.fromkeys(given, vector), self.vectors, "mine")

    def test_right_parts_are_left_as_they_are(self):
        served = self.served((0, torch.ones(3, 2)), (3, 2 * torch.ones(1, 2)))
        assert served["a"] is served["b"] and list(served) == ["a", "b"]
        assert torch.equal(served["a"]["x"], torch.tensor([[1.0, 1], [1, 1], [1, 1], [2, 2]]))

    @pytest.mark.parametrize(
        ("parts", "message"),
        [
            ([(0, torch.ones(4))], r"mine serves a 'x' with shape \(4,\); .* has \(4, 2\)"),
            ([(0, torch.ones(1, 2))], r"shape \(1, 2\); .* has \(4, 2\)"),  # would broadcast
            ([(0, torch.ones(3, 2)), (3, torch.ones(2, 2))], r"shape \(2, 2\); .* has \(1, 2\)"),
            ([(0, torch.full((4, 2), torch.inf))], "NaN or infinity"),
            ([(0, torch.ones(4, 2).long())], "torch.int64, not as a tensor of floating-point"),
        ],
    )
    def test_wrong_parts_are_found_when_they_are_computed(self, parts, message):
        served = self.served(*parts)
        with pytest.raises(ValueError, match=message):
            served["a"]["x"]

    def test_a_sum_that_overflows_is_finite_all_the_same(self):
        large = torch.full((4, 2), 1e38)
        assert torch.equal(self.served((0, large))["a"]["x"], large)

    def test_a_vector_that_is_there_is_checked_at_once(self):
        with pytest.raises(ValueError, match=r"mine serves b 'x' with shape \(2, 2\)"):
            served_by(lambda v: {**v, "b": {"x": torch.ones(2, 2)}}, self.vectors, "mine")

    def test_factors_stay_at_hand(self):
        served = served_by(methods.tsv_compress, self.vectors, "tsv_compress")
        assert served.vectors["a"].factor_shapes("x")

    @pytest.mark.parametrize("method", [methods.individual, methods.tsv_compress, methods.emr])
    def test_every_kind_of_vector_is_checked(self, method):
        """Lazy ones of a class of their own too, whose rule divides by zero."""
        broken = {task: {"x": torch.full((4, 2), torch.nan)} for task in "ab"}
        vectors = {
            task: map_layers(vector, lambda _, delta: delta) for task, vector in broken.items()
        }
        served = served_by(method, vectors, "mine")
        with pytest.raises((ValueError, torch.linalg.LinAlgError), match="NaN|converge"):
            served.layers("a")
