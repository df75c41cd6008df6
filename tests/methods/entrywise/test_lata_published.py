"""Theorems of LATA as published: base, instruct and fine-tuned weights, compared by blocks."""

import logging
import math

import pytest
import torch
from made_up.vectors import close, randn, read

from tsv_bench import methods
from tsv_bench.methods.entrywise.lata_published import similarities, weighted_units
from tsv_bench.task_vectors.lazy import PlainLayers, lazy_vectors

NUM_BLOCKS = 6
LINEAR = {"drop": "linear", "threshold": 0.95}
SHAPES = {"self_attn.q_proj.weight": (4, 5), "mlp.down_proj.weight": (5, 6), "norm.weight": (5,)}
# Listed as a safetensors file lists them.
NAMES = ["lm_head.weight", "model.embed_tokens.weight"] + [
    f"model.layers.{block}.{name}" for block in range(NUM_BLOCKS) for name in sorted(SHAPES)
]


def weights_like(names=NAMES):
    """Random weights of a small Llama."""
    return {n: randn(*SHAPES.get(n.partition(".")[2].split(".", 2)[-1], (3, 5))) for n in names}


def block_of(name):
    return ".".join(name.split(".")[:3])


def moved(weights, sizes, direction):
    """The weights, each block moved by its size along a direction."""
    return {
        n: w + sizes[int(n.split(".")[2])] * direction[n] if ".layers." in n else w + direction[n]
        for n, w in weights.items()
    }


def minus(left, right):
    return {name: left[name] - right[name] for name in left}


@pytest.fixture
def models():
    """Base, instruct, and two tasks whose blocks are more and less like the instruction vector."""
    base = weights_like()
    instruct = {n: w + randn(*w.shape) for n, w in base.items()}
    tuned = {
        "math": moved(instruct, [0.1, 3, 0.3, 2, 1, 0.5], weights_like()),
        "code": moved(instruct, [2, 0.2, 1.5, 0.1, 0.7, 3], weights_like()),
    }
    return base, instruct, tuned


def merge(models, **knobs):
    base, instruct, tuned = models
    vectors = {task: minus(weights, instruct) for task, weights in tuned.items()}
    return methods.lata_published(vectors, instruction=minus(instruct, base), **LINEAR | knobs)


def by_hand(models, weight, granularity):
    """(similarities, weights, vector) from the definition; no two similarities are equal."""
    base, instruct, tuned = models
    unit_of = block_of if granularity == "block" else str
    units = list(dict.fromkeys(unit_of(name) for name in NAMES if ".layers." in name))

    def flat(weights, unit):
        return torch.cat([w.flatten() for n, w in weights.items() if unit_of(n) == unit])

    cosines, found = {}, {}
    merged = {name: torch.zeros_like(w) for name, w in instruct.items()}
    for task, weights in tuned.items():
        own = {}
        for unit in units:
            pair = (flat(model, unit) - flat(base, unit) for model in (weights, instruct))
            own[unit] = torch.cosine_similarity(*pair, dim=0).item()
        order = sorted(units, key=own.get, reverse=True)
        of_unit = {u: weight(r, len(units), own[u]) for r, u in enumerate(order, start=1)}
        for name in NAMES:
            share = of_unit[unit_of(name)] if ".layers." in name else 1
            merged[name] += share * (weights[name] - instruct[name])
        cosines[task], found[task] = own, of_unit
    return cosines, found, merged


FORMS = {
    ("linear", "from_zero"): lambda rank, num, cosine: (rank - 1) / (num - 1),
    ("linear", "above_zero"): lambda rank, num, cosine: rank / num,
    ("logarithmic", "from_zero"): lambda rank, num, cosine: math.log(rank) / math.log(num),
    ("logarithmic", "above_zero"): lambda rank, num, cosine: math.log(1 + rank) / math.log(1 + num),
    ("threshold", "from_zero"): lambda rank, num, cosine: 0 if cosine >= 0.7 else 1,
}


@pytest.mark.parametrize("granularity", ["block", "tensor"])
@pytest.mark.parametrize(("drop", "rank_weights"), FORMS)
def test_it_is_its_definition(models, drop, rank_weights, granularity):
    knobs = {"drop": drop, "rank_weights": rank_weights, "granularity": granularity}
    served = merge(models, **knobs, threshold=0.7)["math"]
    cosines, weights, merged = by_hand(models, FORMS[drop, rank_weights], granularity)
    for task in ("math", "code"):
        # Similarities are rounded to 12 decimals.
        assert served.weighting.similarities[task] == pytest.approx(cosines[task], abs=1e-12)
        assert served.weighting.weights[task] == pytest.approx(weights[task], abs=1e-12)
    torch.testing.assert_close(dict(served.items()), merged, **close)


def test_blocks_that_moved_on_along_the_instruction_are_told_from_those_that_did_not():
    """The former are as instructed, s = 1; a move across it of equal length gives 1 / sqrt 2."""
    base = weights_like()
    instruct = {n: w + randn(*w.shape) for n, w in base.items()}
    instruction, task = minus(instruct, base), {}
    for name, along in instruction.items():
        across = randn(*along.shape)
        across -= (across * along).sum() / along.square().sum() * along
        across *= along.norm() / across.norm()
        task[name] = along if int(name.split(".")[2] if "layers" in name else 0) < 3 else across
    alike, apart = (
        [f"model.layers.{b}" for b in (0, 1, 2)],
        [f"model.layers.{b}" for b in (3, 4, 5)],
    )
    served = methods.lata_published({"a": task}, instruction=instruction, **LINEAR)["a"]
    found = served.weighting
    assert found.similarities["a"] == pytest.approx(
        dict.fromkeys(alike, 1) | dict.fromkeys(apart, 0.5**0.5), abs=1e-12
    )
    # Ranks 1 to 3 and 4 to 6 are shared: (2 - 1) / 5 and (5 - 1) / 5.
    assert found.weights["a"] == pytest.approx(
        dict.fromkeys(alike, 0.2) | dict.fromkeys(apart, 0.8)
    )
    knobs = {"instruction": instruction, "drop": "threshold", "threshold": 0.95}
    served = methods.lata_published({"a": task}, **knobs)["a"]
    for name, delta in served.items():
        assert torch.equal(delta, task[name] * (block_of(name) not in alike)), name


@pytest.mark.parametrize("size", [1e-3, 0.1, 1, 10])
def test_a_small_task_is_similar_by_construction(size):
    """Across the instruction vector, s = 1 / sqrt(1 + (length of task / of instruction)^2)."""
    along, across = torch.zeros(4).double(), torch.zeros(4).double()
    along[0], across[1] = 3, 3 * size
    names = ("h.0.w", "h.1.w")
    served = methods.lata_published(
        {"a": dict.fromkeys(names, across)}, instruction=dict.fromkeys(names, along), **LINEAR
    )
    expected = dict.fromkeys(("h.0", "h.1"), 1 / math.sqrt(1 + size**2))
    assert served["a"].weighting.similarities["a"] == pytest.approx(expected, abs=1e-12)


def test_each_task_has_its_own_weights(models):
    base, instruct, tuned = models
    alone = [merge((base, instruct, {task: tuned[task]}))[task] for task in tuned]
    both = merge(models)["math"]
    assert both.weighting.weights == {
        task: one.weighting.weights[task] for task, one in zip(tuned, alone, strict=True)
    }
    assert both.weighting.weights["math"] != both.weighting.weights["code"]
    total = {name: sum(one[name] for one in alone) for name in NAMES}
    torch.testing.assert_close(dict(both.items()), total, **close)


def test_the_order_of_tasks_does_not_matter(models):
    base, instruct, tuned = models
    flipped = merge((base, instruct, dict(reversed(tuned.items()))))
    torch.testing.assert_close(read(flipped)["math"], read(merge(models))["math"], **close)


def test_what_has_no_similarity_is_not_like_the_instruction():
    """Nothing of the instruction: never there (0), or undone by the task (1). 2: nothing at all."""
    instruction = {"h.0.w": torch.zeros(3), "h.1.w": torch.ones(3), "h.2.w": torch.zeros(3)}
    task = {"h.0.w": torch.ones(3), "h.1.w": -torch.ones(3), "h.2.w": torch.zeros(3)}
    instruction |= {"h.3.w": torch.ones(3), "h.4.w": torch.ones(3)}
    task |= {"h.3.w": torch.zeros(3), "h.4.w": -2 * torch.ones(3)}
    served = methods.lata_published({"a": task}, instruction=instruction, **LINEAR)["a"]
    assert served.weighting.similarities["a"] == {"h.0": 0, "h.1": 0, "h.3": 1, "h.4": -1}
    thirds = {"h.0": 1.5 / 3, "h.1": 1.5 / 3, "h.3": 0, "h.4": 1}
    assert served.weighting.weights["a"] == pytest.approx(thirds)
    assert not served["h.2.w"].any()


def test_an_unchanged_task_is_like_the_instruction_everywhere(models):
    base, instruct, tuned = models
    served = merge((base, instruct, tuned | {"none": instruct}))["none"]
    assert set(served.weighting.similarities["none"].values()) == {1}
    assert set(served.weighting.weights["none"].values()) == {0.5}
    expected = dict(merge(models)["math"].items())
    torch.testing.assert_close(dict(served.items()), expected, **close)


def test_parameters_outside_of_blocks_weigh_one_and_it_is_said(models, caplog):
    base, instruct, tuned = models
    caplog.set_level(logging.INFO)
    for granularity in ("block", "tensor"):
        served = merge(models, drop="threshold", threshold=-1, granularity=granularity)["math"]
        for name in NAMES[:2]:
            total = sum(weights[name] - instruct[name] for weights in tuned.values())
            torch.testing.assert_close(served[name], total, **close)
        assert not any(served[name].any() for name in NAMES[2:])
    said = "2 parameters outside of blocks weigh 1: lm_head.weight, model.embed_tokens.weight"
    assert caplog.messages.count(said) == 2
    assert "drop=threshold drops every block: none has a similarity below threshold=-1." in (
        caplog.text
    )


EVEN = {
    "no block": (["a.weight", "b.weight"], "linear", "no parameter's name has a numbered block"),
    "one block": (
        ["h.0.mlp.weight"],
        "linear",
        "every block weighs 1: all are equally",
    ),
    "low": (
        ["h.0.mlp.weight", "h.1.mlp.weight"],
        "threshold",
        "every block weighs 1: none",
    ),
}


@pytest.mark.parametrize("case", EVEN)
def test_weights_that_tell_nothing_apart_are_a_warning(case, caplog):
    names, drop, message = EVEN[case]
    task = {name: torch.tensor([1.0, 2.0, 0.0]) for name in names}
    instruction = {name: torch.tensor([0.0, 1.0, 5.0]) for name in names}
    served = methods.lata_published({"a": task}, instruction=instruction, drop=drop, threshold=1)
    assert message in caplog.text
    torch.testing.assert_close(read(served)["a"], task, rtol=0, atol=0)


CONVENTIONS = {
    "model.layers.{}.mlp.up_proj.weight": "model.layers.{}",
    "model.layers.{}.mlp.experts.7.up_proj.weight": "model.layers.{}",
    "h.{}.attn.c_attn.weight": "h.{}",
    "transformer.h.{}.ln_1.bias": "transformer.h.{}",
    "encoder.block.{}.layer.0.SelfAttention.q.weight": "encoder.block.{}",
    "decoder.block.{}.layer.2.DenseReluDense.wo.weight": "decoder.block.{}",
    "bert.encoder.layer.{}.attention.self.query.weight": "bert.encoder.layer.{}",
    "visual.transformer.resblocks.{}.attn.in_proj_weight": "visual.transformer.resblocks.{}",
}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_blocks_of_every_naming_are_found_in_the_order_of_their_depth(name):
    files = [name.format(block) for block in (0, 1, 10, 11, 2)]
    found = weighted_units([*files, "embedding.weight"], "block")
    assert list(found.values()) == [CONVENTIONS[name].format(b) for b in (0, 1, 2, 10, 11)]
    assert list(weighted_units(files, "tensor").values()) == list(found)
    stacks = [f"{stack}.{n}" for stack in ("one", "two") for n in found]
    assert list(weighted_units(stacks, "block")) == stacks  # one stack, then the other


def test_layers_in_parts_have_the_similarity_of_the_whole(models, monkeypatch):
    base, instruct, tuned = models
    vectors = lazy_vectors(minus(weights, instruct) for weights in tuned.values())
    given = vectors, PlainLayers(minus(instruct, base)), weighted_units(NAMES, "block")
    whole = similarities(*given)
    monkeypatch.setattr("tsv_bench.task_vectors.lazy.BLOCK", 12)
    for found, expected in zip(similarities(*given), whole, strict=True):
        assert found == pytest.approx(expected, abs=1e-12)


class Counted(PlainLayers):
    """Layers that count how often each was read."""

    def __init__(self, layers, reads):
        super().__init__(layers)
        self.reads_rows, self.reads = False, reads

    def __getitem__(self, name):
        self.reads.append(name)
        return super().__getitem__(name)


def test_there_are_two_passes_and_the_first_leaves_out_what_is_not_weighted(models):
    base, instruct, tuned = models
    of_tasks, of_instruction = [], []
    served = methods.lata_published(
        {task: Counted(minus(w, instruct), of_tasks) for task, w in tuned.items()},
        instruction=Counted(minus(instruct, base), of_instruction),
        **LINEAR,
    )["math"]
    assert of_tasks == [name for name in NAMES[2:] for _ in tuned]
    assert of_instruction == NAMES[2:]
    of_tasks.clear()
    read({"math": served})
    assert of_tasks == [name for name in NAMES for _ in tuned] and of_instruction == NAMES[2:]


def test_an_instruction_vector_of_other_layers_is_refused(models):
    base, instruct, tuned = models
    vectors = {task: minus(weights, instruct) for task, weights in tuned.items()}
    instruction = minus(instruct, base)
    other = {name: delta for name, delta in instruction.items() if name != NAMES[-1]}
    with pytest.raises(ValueError, match=f"has no '{NAMES[-1]}', which the task vectors have"):
        methods.lata_published(vectors, instruction=other, **LINEAR)
    other = instruction | {NAMES[-1]: torch.ones(1)}
    with pytest.raises(ValueError, match=r"is \(1,\) in the instruction vector and \(4, 5\)"):
        methods.lata_published(vectors, instruction=other, **LINEAR)
