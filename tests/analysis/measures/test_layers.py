"""Layers are measured one by one: which ones, in what order, how many at a time."""

import weakref

import pytest
import torch
from made_up.vectors import close, randn, random_vectors

from tsv_bench.analysis import measures
from tsv_bench.analysis.measures import Settings, layers, measure
from tsv_bench.task_vectors import streaming
from tsv_bench.task_vectors.lazy import PlainLayers


def test_layers_are_all_in_order_and_the_chosen_ones():
    vectors = random_vectors(3)
    found = list(measure(vectors, Settings()))
    assert [layer.name for layer in found] == list(vectors["task0"])
    matrices = {layer.name for layer in found if layer.matrices}
    assert matrices == {"in_proj_weight", "proj", "c_proj.weight"}
    assert [layer.name for layer in found if not layer.is_changed] == ["frozen"]
    chosen = measure(vectors, Settings(layers=["*proj*", "bias"], exclude=["proj"]))
    assert {layer.name: len(layer.matrices) for layer in chosen} == {
        "in_proj_weight": 1, "proj": 0, "c_proj.weight": 1, "text_projection": 1, "bias": 0
    }  # fmt: skip


def test_inner_products_are_those_of_the_deltas_in_blocks_too(monkeypatch):
    monkeypatch.setattr(layers, "CHUNK", 7)
    vectors = random_vectors(3)
    for layer in measure(vectors, Settings()):
        flat = torch.stack([vectors[task][layer.name].flatten() for task in vectors])
        torch.testing.assert_close(layer.products, flat @ flat.mT, **close)


class Watched(PlainLayers):
    """A task vector that counts how many of the deltas it gave are alive."""

    def __init__(self, vector, alive, most):
        super().__init__(vector)
        self.reads_rows, self.alive, self.most = False, alive, most

    def __getitem__(self, name):
        delta = super().__getitem__(name).clone()
        self.alive.append(weakref.ref(delta))
        self.most.append(sum(ref() is not None for ref in self.alive))
        return delta


def test_few_layers_of_the_tasks_are_in_memory(monkeypatch):
    monkeypatch.setattr(streaming, "IN_FLIGHT", 1)
    alive, most = [], []
    vectors = {
        f"task{t}": Watched({f"w{i}": randn(12, 12) for i in range(20)}, alive, most)
        for t in range(3)
    }
    measured = measure(vectors, Settings())
    assert not most
    assert len(list(measured)) == 20
    # At least two parts are being computed while another is handed over.
    assert len(most) == 60 and max(most) <= 3 * 3


MISTAKES = [
    ({"rank_fraction": 2}, "rank_fraction=2 is not in"),
    ({"svd": "qr"}, "svd='qr' is not a route"),
    ({"polar": "qr"}, "polar='qr' is not a route"),
    ({"exclude": "proj"}, "exclude='proj' is not a list"),
    ({"split_qkv": 1}, "split_qkv=1 is neither true nor false"),
    ({"layers": [3]}, r"layers=\[3\] is no list of patterns"),
    ({"layers": 3}, "layers=3 is no list of patterns"),
    ({"layers": "*atn*"}, r"layers='\*atn\*' fits none of the 8 layers"),
    ({"layers": ["proj", "*atn*"]}, r"layers='\*atn\*' fits none of the 8 layers"),
    ({"layers": []}, "no matrix among the 0 layers"),
    ({"layers": ["bias", "conv1*"]}, "no matrix among the 2 layers, first 'conv1.weight'"),
]


@pytest.mark.parametrize(("wrong", "message"), MISTAKES)
def test_mistakes_are_named_before_anything_is_read(wrong, message):
    with pytest.raises(ValueError, match=message):
        measures.measure(random_vectors(2), Settings(**wrong))
