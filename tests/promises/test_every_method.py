"""What holds for every method: order, inputs, laziness, degenerate suites, knobs."""

import inspect
import itertools
import weakref
from collections import Counter

import pytest
import torch
from made_up.every_method import (
    ADAPTED,
    AT_ONCE,
    BOUNDED,
    LEARNING,
    MASKS,
    MEANS,
    METHODS,
    NUM_TASKS,
    OF_ONE_SCALE,
    ONE_EACH,
    ONE_TASK_IS_CHANGED,
    OTHERS_ARE_AVERAGED,
    PASSES,
    READ_BEFORE,
    ROUNDED,
    ROUTED,
    STARTED,
    YAMLS,
    suited,
)
from made_up.vectors import close, random_vectors, read
from omegaconf import OmegaConf

from tsv_bench import methods
from tsv_bench.task_vectors.lazy import PlainLayers

pytestmark = pytest.mark.usefixtures("without_shape_checks", "short_fits")
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def test_no_method_is_forgotten():
    tried = {getattr(method, "func", method).__name__ for method in METHODS.values()}
    assert tried == set(methods.__all__)


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_defaults_in_python_are_those_of_the_yaml(path):
    """The yaml chooses them. Of a knob that validation chooses it is the default without."""
    node = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    function = getattr(methods, node["serve"]["_target_"].removeprefix("tsv_bench.methods."))
    expected = {key: value for key, value in node["serve"].items() if not key.startswith("_")}
    if (choice := node.get("choose")) and expected[choice["knob"]] is None:
        expected[choice["knob"]] = choice["default"]
    takes = dict(list(inspect.signature(function).parameters.items())[1:])
    found = {name: takes[name].default for name in takes if name not in node.get("needs", ())}
    found = {name: list(v) if isinstance(v, tuple) else v for name, v in found.items()}
    assert found == expected


def copied(vectors):
    return {task: {n: d.clone() for n, d in vector.items()} for task, vector in vectors.items()}


@pytest.mark.parametrize("name", METHODS)
def test_task_order_does_not_matter(name):
    vectors = random_vectors(suited(METHODS[name], 4))
    flipped = dict(reversed(vectors.items()))
    served, other = read(METHODS[name](vectors)), read(METHODS[name](flipped))
    near = ROUNDED.get(name, close)
    torch.testing.assert_close(dict(sorted(other.items())), served, **near)


@pytest.mark.parametrize("name", MEANS)
def test_a_mean_of_models_does_not_depend_on_what_they_differ_from(name):
    vectors = random_vectors(3)
    moved = {layer: torch.randn_like(delta) for layer, delta in vectors["task0"].items()}
    others = {t: {n: d - moved[n] for n, d in deltas.items()} for t, deltas in vectors.items()}
    for task, served in read(METHODS[name](others)).items():
        back = {layer: delta + moved[layer] for layer, delta in served.items()}
        torch.testing.assert_close(back, read(METHODS[name](vectors))[task], **close)


@pytest.mark.parametrize("name", METHODS)
def test_every_layer_is_served_and_again_the_same_and_inputs_are_left_alone(name):
    vectors = random_vectors(suited(METHODS[name], 3))
    before, served = copied(vectors), METHODS[name](vectors)
    assert list(served) == list(vectors)
    assert all(list(served[task]) == list(vectors[task]) for task in vectors)
    own = name in [*ONE_EACH, *MASKS, *ADAPTED, *ROUTED]
    assert len({id(vector) for vector in served.values()}) == (3 if own else 1)
    first = read(served)
    for task, vector in first.items():
        for layer, delta in vector.items():
            assert delta.shape == vectors[task][layer].shape, (task, layer)
            assert delta.dtype == torch.float64, (task, layer)
        assert not vector["frozen"].any(), task
    torch.testing.assert_close(read(METHODS[name](vectors)), first, rtol=0, atol=0)
    torch.testing.assert_close(vectors, before, rtol=0, atol=0)


@pytest.mark.parametrize("name", sorted({*METHODS} - {*ONE_TASK_IS_CHANGED, *NUM_TASKS}))
def test_one_task_is_served_unchanged(name):
    vectors = random_vectors(1)
    torch.testing.assert_close(read(METHODS[name](vectors)), vectors, **close)


@pytest.mark.parametrize("name", ONE_TASK_IS_CHANGED)
def test_no_exemption_from_that_is_one_for_nothing(name):
    vectors = random_vectors(1)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(read(METHODS[name](vectors)), vectors, **close)


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"individual"}))
def test_half_precision_is_worked_on_in_float32(name):
    halves = torch.float16, torch.bfloat16  # of every other layer; float8 has no rule of promotion
    for dtypes in (halves, (torch.float8_e4m3fn,)):
        vectors = random_vectors(suited(METHODS[name], 2))
        for vector in vectors.values():
            of_layers = zip(vector.items(), itertools.cycle(dtypes), strict=False)
            vector.update({layer: delta.to(dtype) for (layer, delta), dtype in list(of_layers)})
        wide = {task: {n: d.float() for n, d in vector.items()} for task, vector in vectors.items()}
        served, expected = read(METHODS[name](vectors)), read(METHODS[name](wide))
        torch.testing.assert_close(
            served, expected, rtol=0, atol=0, msg=lambda text, d=dtypes: f"{d}: {text}"
        )


@pytest.mark.parametrize("name", OTHERS_ARE_AVERAGED)
def test_what_is_not_a_matrix_is_averaged(name):
    vectors = random_vectors(3)
    merged, mean = METHODS[name](vectors)["task0"], methods.weight_average(vectors)["task0"]
    for layer in ("text_projection", "conv1.weight", "bias", "logit_scale"):
        torch.testing.assert_close(merged[layer], mean[layer], rtol=0, atol=0)
    assert not torch.allclose(merged["proj"], mean["proj"])


@pytest.mark.parametrize("name", sorted(set(METHODS) - set(OF_ONE_SCALE)))
def test_scale_does_not_matter(name):
    """Squares of float32 overflow from 2^64 on, and vanish from 2^-75 on."""
    vectors = random_vectors(suited(METHODS[name], 2), torch.float32)
    expected = read(METHODS[name](vectors))
    for exponent in (-100, -64, 60, 100):
        scaled = {t: {n: d * 2.0**exponent for n, d in v.items()} for t, v in vectors.items()}
        served = read(METHODS[name](scaled))
        found = {t: {n: d * 2.0**-exponent for n, d in v.items()} for t, v in served.items()}
        torch.testing.assert_close(
            found, expected, rtol=1e-4, atol=1e-5, msg=lambda text, e=exponent: f"2^{e}: {text}"
        )


@pytest.mark.parametrize("name", ROUTED)
def test_an_expert_reads_one_layer_when_it_is_wanted(name):
    watched, reads = watch(random_vectors(3))
    served = METHODS[name](watched)["task1"]
    served["proj"]  # what it needs of all layers, if anything, is found with the first matrix
    for layer in served:
        reads.clear()
        served[layer]
        assert {read for read, _ in reads} == {layer}


@pytest.mark.parametrize("name", NUM_TASKS)
def test_a_method_for_so_many_tasks_refuses_others_and_reads_nothing(name):
    for num_tasks in {1, 2, 3, 4} - {NUM_TASKS[name]}:
        watched, reads = watch(random_vectors(num_tasks))
        message = f"{name} is for exactly {NUM_TASKS[name]} tasks, .* are {num_tasks}: task0"
        with pytest.raises(ValueError, match=message):
            METHODS[name](watched)
        assert not reads


@every_method
def test_no_tasks_only_checks_the_knobs(method):
    assert method({}) == {}


class Watched(PlainLayers):
    """A lazy task vector that counts how many of the tensors it gave are alive."""

    def __init__(self, vector, alive, reads):
        super().__init__(vector)
        self.reads_rows, self.alive, self.reads = False, alive, reads

    def __getitem__(self, name):
        delta = super().__getitem__(name).clone()
        self.reads.append((name, len(self.alive) + 1))
        self.alive.add(delta)
        return delta


class WeakTensors:
    def __init__(self):
        self.refs = {}

    def add(self, tensor):
        self.refs[id(tensor)] = weakref.ref(tensor)

    def __len__(self):
        return sum(ref() is not None for ref in self.refs.values())


def watch(vectors):
    """Watched vectors and their reads, (layer, tensors then alive)."""
    alive, reads = WeakTensors(), []
    return {task: Watched(vector, alive, reads) for task, vector in vectors.items()}, reads


ANOTHER_WAY = {"zero_shot", *ONE_EACH, *LEARNING, *AT_ONCE, *ROUTED}


@pytest.mark.parametrize("name", sorted({*METHODS} - ANOTHER_WAY))
def test_merging_reads_one_layer_of_every_task_when_it_is_wanted(name):
    num_tasks = suited(METHODS[name], 4)
    vectors = random_vectors(num_tasks)
    watched, reads = watch(vectors)
    served, layers = METHODS[name](watched)["task0"], list(vectors["task0"])
    before = [layer for layer, _ in reads]
    often = dict.fromkeys(READ_BEFORE.get(name, layers), num_tasks * PASSES.get(name, 0))
    assert Counter(before) == Counter(often)
    reads.clear()
    for layer in layers:
        served[layer]
    found = [layer for layer, _ in reads]
    if name in STARTED:  # a layer of the merged vector that it starts from reads it once more
        assert list(dict.fromkeys(found)) == layers and set(Counter(found).values()) == {
            num_tasks,
            2 * num_tasks,
        }
    else:
        often = num_tasks * (2 if name in BOUNDED else 1)
        assert found == [layer for layer in layers for _ in range(often)]
    assert max(alive for _, alive in reads) <= num_tasks


@pytest.mark.parametrize("name", LEARNING)
def test_learning_reads_nothing_before_a_layer_is_wanted(name):
    watched, reads = watch(random_vectors(3))
    served = METHODS[name](watched)["task0"]
    assert not reads
    served["proj"]
    assert {layer for layer, _ in reads} == set(served)


@pytest.mark.parametrize("name", AT_ONCE)
def test_a_network_is_run_when_a_layer_is_wanted_and_once(name):
    watched, reads = watch(random_vectors(4))
    served = METHODS[name](watched)["task0"]
    assert reads == []
    merged = served["proj"]
    assert {"proj", "in_proj_weight", "bias"} <= {layer for layer, _ in reads}
    reads.clear()
    assert torch.equal(served["proj"], merged) and {layer for layer, _ in reads} <= {"proj"}


@pytest.mark.parametrize("name", ["zero_shot", *ONE_EACH])
def test_serving_each_its_own_reads_on_access(name):
    watched, reads = watch(random_vectors(4))
    served = METHODS[name](watched)
    assert reads == []
    served["task2"]["proj"]
    assert reads == [("proj", 1)]
