"""Vectors to start from: served as by the methods themselves, and read only when wanted."""

import pytest
from made_up.vectors import random_vectors
from torch import equal

from tsv_bench import methods
from tsv_bench.methods.observed.anchors import ANCHORS, anchor_vector, check_anchor


@pytest.mark.parametrize("name", ANCHORS)
def test_an_anchor_is_what_the_method_serves(name):
    vectors = random_vectors(3)
    found, served = anchor_vector(name, vectors), getattr(methods, name)(vectors)["task0"]
    assert list(found) == list(served)
    assert all(equal(found[layer], served[layer]) for layer in served)


@pytest.mark.parametrize("name", ["ties", "mats", "", None])
def test_other_methods_are_refused(name):
    with pytest.raises(ValueError, match=r"start=.* is not a method that needs no data"):
        check_anchor("start", name)
