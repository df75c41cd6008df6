"""ESM++: experts in the directions of their outputs, chosen in each layer by mean inputs."""

import pytest
import torch
import torch.nn.functional as F
from made_up.statistics import grams_of, made_up_inputs
from made_up.vectors import close, randn, read

from tsv_bench import methods
from tsv_bench.methods.forms import Routed
from tsv_bench.methods.served import served_by
from tsv_bench.task_vectors.statistics import Statistics

SHAPES = {"b.attn.in_proj_weight": (12, 8), "b.mlp.c_fc.weight": (9, 8), "b.ln_1.weight": (8,)}
EXPERTS = list(SHAPES)[:2]
TASKS = ["a", "b", "c"]
INPUTS = made_up_inputs(SHAPES, TASKS)
GRAMS = {task: grams_of(x) for task, x in INPUTS.items()}
MEANS = {task: Statistics({n: x.mean(dim=0) for n, x in o.items()}) for task, o in INPUTS.items()}


def example(**knobs):
    torch.manual_seed(0)
    vectors = {task: {n: randn(*shape) for n, shape in SHAPES.items()} for task in TASKS}
    return vectors, served_by(
        lambda v: methods.esm_plus_plus(v, inputs=GRAMS, means=MEANS, **knobs), vectors, "esm++"
    )


def test_at_full_rank_an_expert_is_the_tasks_own_model_in_these_layers():
    vectors, served = example(rank=12, base_alpha=0.5)
    shared = methods.esm(vectors, inputs=GRAMS)
    for task, found in read(served).items():
        for name in EXPERTS:
            torch.testing.assert_close(found[name], vectors[task][name], rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(found["b.ln_1.weight"], 0.5 * shared[task]["b.ln_1.weight"])


def test_its_outputs_on_the_tasks_inputs_are_the_nearest_of_that_rank():
    vectors, served = example(rank=3)
    shared = methods.esm(vectors, inputs=GRAMS)
    for task, found in read(served).items():
        for name in EXPERTS:
            x, delta = INPUTS[task][name], vectors[task][name]
            lost = torch.linalg.matrix_norm(x @ (delta - found[name]).T)
            values = torch.linalg.svdvals(x @ (delta - shared[task][name]).T)
            torch.testing.assert_close(lost, values[3:].square().sum().sqrt(), rtol=1e-7, atol=0)


def test_an_image_gets_the_expert_whose_mean_input_is_most_like_the_mean_of_its_tokens():
    _, served = example(rank=2)
    assert isinstance(served, Routed)
    router = served.in_memory().router
    gates = router.gates(None)
    for name in EXPERTS:
        x = torch.stack([INPUTS["c"][name][:20], INPUTS["a"][name][:20], randn(20, 8)])
        means = torch.stack([INPUTS[t][name].mean(dim=0) for t in TASKS])
        for image, found in zip(x, gates(name, x), strict=True):
            cosines = F.cosine_similarity(image.mean(dim=0)[None], means)
            assert found.tolist() == [float(i == cosines.argmax()) for i in range(3)]
    up, down = router.experts.factors[EXPERTS[0]]
    alone = read(served)["b"][EXPERTS[0]]
    shared = served.routing.shared[EXPERTS[0]]
    torch.testing.assert_close(shared + up[1] @ down[1], alone, **close)


def test_stored_are_the_shared_vector_factors_and_mean_inputs():
    vectors, served = example(rank=2)
    dense = sum(delta.numel() for delta in vectors["a"].values())
    factors = 3 * 2 * (12 + 8 + 9 + 8)
    assert served.in_memory().stored_bytes() == 4 * (dense + factors + 3 * (8 + 8))


@pytest.mark.parametrize(
    ("knob", "message"), [({"rank": 0}, "rank=0"), ({"base_alpha": -1}, "base_alpha=-1")]
)
def test_knobs_out_of_range(knob, message):
    with pytest.raises(ValueError, match=message):
        methods.esm_plus_plus({}, inputs={}, means={}, **knob)
