"""What every lazily read mapping is held to, whoever wrote it."""

from collections import Counter
from functools import partial

import pytest
import torch
from made_up import adapter_files
from made_up.merges import TASKS, finetuned, made, pretrained, write_checkpoints
from made_up.state_dicts import save
from made_up.vectors import random_vectors

from tsv_bench import methods
from tsv_bench.checkpoints.image_tower import ImageTower, Place
from tsv_bench.merging.as_matrices import MatrixView
from tsv_bench.merging.scaling.task_weights import ScaledVector
from tsv_bench.merging.told.dry_run import Only
from tsv_bench.methods.entrywise.dare import DroppedVector
from tsv_bench.methods.entrywise.lata_published import WeightedVector, Weighting
from tsv_bench.methods.forms import as_served
from tsv_bench.methods.learned.adapters import AdaptedVector
from tsv_bench.methods.learned.rounds import Kept
from tsv_bench.methods.routed.routed_vector import RoutedVector
from tsv_bench.observation.statistics_file import StatisticsFile, write_statistics
from tsv_bench.state_dicts.adapters.adapted import open_checkpoint
from tsv_bench.state_dicts.entries.views import Layout, View
from tsv_bench.state_dicts.inputs import open_inputs
from tsv_bench.state_dicts.low_rank import CompressedStateDict, OnPretrained, StoredTaskVector
from tsv_bench.state_dicts.masked import MaskedStateDict
from tsv_bench.state_dicts.state_dict import CachedReads, open_state_dict
from tsv_bench.task_vectors.lazy import (
    LazyMapping,
    OtherLayers,
    PlainLayers,
    as_lazy,
    blocks,
    lazy_vectors,
    stacked,
    widest_dtype,
)
from tsv_bench.task_vectors.merge import map_layers
from tsv_bench.task_vectors.statistics import Gathered, Statistics
from tsv_bench.task_vectors.task_vector import TaskVector, Weights

ABSTRACT = {OnPretrained, OtherLayers, StoredTaskVector}  # what is between LazyMapping and others


@pytest.fixture(scope="module")
def every(tmp_path_factory):
    """One of each class, all with the layers of small checkpoints."""
    folder = tmp_path_factory.mktemp("lazy")
    write_checkpoints(folder)
    compressed = {"tsv_compress": "factors", "emr": "masks"}
    for method, output in compressed.items():
        made(folder, method, output, write="compressed")
    base, state = (open_state_dict(folder / f"{name}.safetensors") for name in ("base", "a"))
    factors = CompressedStateDict(base, open_state_dict(folder / "factors" / "a.safetensors"))
    masks = MaskedStateDict(base, open_state_dict(folder / "masks" / "a.safetensors"))
    moved = {f"visual.{name}": tensor for name, tensor in finetuned(0).items()}
    save(moved, folder / "moved.safetensors")
    places = {name: Place((f"visual.{name}",)) for name in base}
    vectors = {task: TaskVector(pretrained(), finetuned(i)) for i, task in enumerate(TASKS)}
    paths = {task: folder / compressed["tsv_compress"] / f"{task}.safetensors" for task in TASKS}
    stored = open_inputs(folder / "base.safetensors", paths).vectors["a"]
    from_cache = open_inputs(folder / "base.safetensors", {"a": folder / "a.safetensors"})
    adapter_files.write(folder / "lora" / "one", adapter_files.factors("blocks.0.c_proj", 12, 30))
    adapter = open_inputs(folder / "base.safetensors", {"a": folder / "lora" / "one"}).vectors["a"]
    adapted = open_checkpoint(f"{folder / 'base.safetensors'}+{folder / 'lora' / 'one'}")
    observed = folder / "observed.safetensors"
    layers = {n: t.float() for n, t in finetuned(0).items() if t.is_floating_point()}
    shapes = {name: layer.shape for name, layer in layers.items()}
    gathered = dict.fromkeys(layers, Gathered(3))
    write_statistics(observed, "fisher", gathered, shapes, layers.__getitem__, {})
    served = as_served(methods.emr(vectors))
    found = [
        PlainLayers(finetuned(0)),
        state,
        CachedReads(state),
        View(state, {"again": "visual.proj"} | {name: name for name in state}, {"frozen": 3}),
        Layout(state, View(base, {"frozen": "frozen"})),
        ImageTower(open_state_dict(folder / "moved.safetensors"), places, base),
        factors,
        masks,
        vectors["a"],
        stored,
        from_cache.vectors["a"],
        adapter,
        adapter.weights,
        adapted,
        adapted.stored,
        methods.task_arithmetic(vectors)["a"],
        methods.tsv_compress(vectors)["a"],
        methods.emr(vectors)["a"],
        served.in_memory().vectors["a"],
        DroppedVector(vectors["a"], 0.5, "0/a"),
        Statistics(finetuned(0)),
        AdaptedVector(finetuned(0), lambda layers: {}),
        RoutedVector(finetuned(0), None),
        Kept(finetuned(0), "cpu"),
        WeightedVector([vectors["a"]], {}, Weighting({}, {"a": {}})),
        methods.esm(vectors, inputs={task: {} for task in vectors})["a"],
        StatisticsFile(observed),
        ScaledVector(vectors["a"], 0.5),
        MatrixView(vectors["a"], stacked=True, kernels=True),
        Weights(finetuned(0), vectors["a"]),
        Only(vectors["a"], ["visual.proj", "logit_scale"]),
    ]
    return {type(one).__name__: one for one in found}


def subclasses(kind=LazyMapping):
    for one in kind.__subclasses__():
        if one.__module__.startswith("tsv_bench."):
            yield one
            yield from subclasses(one)


def test_every_class_is_held_to_it(every):
    exempt = {kind.__name__ for kind in ABSTRACT} | {"CachedTaskVector"}  # needs a factor cache
    assert {kind.__name__ for kind in subclasses()} - exempt == set(every)


CLASSES = [kind.__name__ for kind in subclasses() if kind not in ABSTRACT]


@pytest.mark.parametrize("name", [c for c in CLASSES if c != "CachedTaskVector"])
def test_names_shapes_types_and_rows_are_those_of_the_layers(every, name):
    lazy = every[name]
    layers = dict(lazy.items())
    rounding = (
        1e-6 if name.startswith(("Compressed", "Adapter", "AdaptedState")) else 0
    )  # a product of some rows of a factor
    assert list(layers) == list(lazy) == list(lazy.names) and len(lazy) == len(layers)
    assert "no such layer" not in lazy and all(layer in lazy for layer in layers)
    for layer, tensor in layers.items():
        assert (lazy.shape(layer), lazy.dtype(layer)) == (tensor.shape, tensor.dtype), layer
        assert isinstance(lazy.shape(layer), torch.Size)
        num_rows = lazy.num_rows(layer)
        assert num_rows == (len(tensor) if tensor.ndim else 1)
        assert torch.equal(lazy.rows(layer, 0, num_rows), tensor)
        for start, stop in ((0, 1), (num_rows // 2, num_rows), (1, 3)) if tensor.ndim else ():
            rows = lazy.rows(layer, start, stop)
            torch.testing.assert_close(rows, tensor[start:stop], rtol=0, atol=rounding)
    with pytest.raises(KeyError):
        lazy.shape("no such layer")
    with pytest.raises(KeyError):
        lazy["no such layer"]


@pytest.mark.parametrize("name", [c for c in CLASSES if c != "CachedTaskVector"])
def test_rows_are_the_same_read_again_widened_or_into_a_tensor(every, name):
    lazy, layer = every[name], "visual.proj"
    before = lazy[layer].clone()
    out = torch.empty(2, *before.shape[1:], dtype=torch.float64)
    lazy.read_into(layer, 1, 3, out)
    wide = lazy.wide_rows(layer, 1, 3, torch.device("cpu"))
    assert wide.dtype in (torch.float32, torch.float64)
    # A few rows of a low-rank product are rounded otherwise than all.
    torch.testing.assert_close(out, before[1:3].double(), rtol=0, atol=1e-6)
    assert torch.equal(wide.double(), out)
    assert torch.equal(lazy[layer], before)


def test_a_plain_mapping_becomes_one_at_the_door_and_a_lazy_one_stays():
    layers = {"w": torch.ones(3, 2), "s": torch.tensor(1.0)}
    lazy = as_lazy(layers)
    assert as_lazy(lazy) is lazy and lazy["w"] is layers["w"]
    assert lazy.recall("w", 1, "gram") is None and lazy.rank_ahead(9) == 0
    with pytest.raises(ValueError, match="different layers: 1 appear in only one"):
        lazy_vectors([layers, {"w": torch.ones(3, 2)}])
    assert lazy_vectors([]) == []


def test_a_mapping_that_may_compute_is_read_once_for_all_rows(monkeypatch):
    """A user's own knows nothing of rows: each would cost the whole layer."""
    monkeypatch.setattr("tsv_bench.task_vectors.lazy.BLOCK", 4)
    reads = Counter()

    class Own(dict):
        def __getitem__(self, name):
            reads[name] += 1
            return super().__getitem__(name)

    class Computed(PlainLayers):
        reads_rows = False

    own = Computed(Own(w=torch.ones(8, 2)))
    own.reads_rows = False
    parts = blocks([own], "w", partial(torch.sum, dim=0))
    reads.clear()
    assert len(parts) == 1 and torch.equal(parts[0].read()[0], torch.ones(8, 2))
    assert reads == {"w": 1}
    assert len(blocks([as_lazy({"w": torch.ones(8, 2)})], "w", torch.sum)) == 4


def test_the_widest_type_is_float32_at_least():
    half = as_lazy({"w": torch.ones(2, dtype=torch.float16)})
    double = as_lazy(random_vectors(1)["task0"])
    assert widest_dtype([half], "w") == torch.float32
    assert widest_dtype([double], "proj") == torch.float64
    third = torch.ones(2).double() / 3
    assert widest_dtype([half, as_lazy({"w": third})], "w") == torch.float64
    assert torch.equal(stacked([half["w"], third], 2)[1], third)


def test_statistics_are_read_by_rows_only_where_their_layers_are():
    """A block of rows of a layer that is computed whole would compute it whole for each block."""
    plain, computed = finetuned(0), map_layers(finetuned(0), lambda name, layer: layer)
    assert Statistics(plain).reads_rows and not Statistics(computed).reads_rows
