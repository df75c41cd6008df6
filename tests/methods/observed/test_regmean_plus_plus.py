"""Theorems of RegMean++, and its definition written out with hooks on a small CLIP."""

import copy
from functools import partial

import pytest
import torch
from made_up.backbones import OTHER, SMALL, clip
from made_up.bench import MadeUpBench
from made_up.vectors import close, random_vectors, read

from tsv_bench import methods
from tsv_bench.benchmark.given.image_bench import ImageBench
from tsv_bench.methods.forms import Shared
from tsv_bench.methods.served import served_by
from tsv_bench.models import Backbone, normalize

TASKS = ("a", "b", "c")


@pytest.fixture
def small():
    """The bench of a tower of two blocks, and three task vectors."""
    return bench_and_vectors(SMALL)


def bench_and_vectors(architecture, num_images=9):
    visual = clip(architecture).visual
    backbone = Backbone(
        name="s", label="S", image_size=32, visual=visual, fingerprint="", logit_scale=1.0,
        encode_text=lambda prompts: None,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    shape = (num_images, 3, 32, 32)
    images = {
        t: torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for t in TASKS
    }
    heads = {task: torch.randn(5, 24, generator=generator) for task in TASKS}
    bench = ImageBench(backbone, heads, images, None, device="cpu", seed=0)
    vectors = {
        task: {n: 0.05 * torch.randn(p.shape, generator=generator)
               for n, p in backbone.pretrained.items()}
        for task in TASKS
    }  # fmt: skip
    return bench, vectors, visual


def tuned(visual, vector):
    """The network of a task, in float64."""
    model = copy.deepcopy(visual)
    state = {n: p + vector[n] for n, p in model.state_dict().items()}
    model.load_state_dict(state)
    return model.double()


def merge_linear(weights, inputs, off_diagonal=0.95):
    """The paper's equation for weights as torch stores them, by a plain inverse."""
    numerator = denominator = 0
    for weight, x in zip(weights, inputs, strict=True):
        gram = x.mT @ x / len(x)
        gram = off_diagonal * gram + (1 - off_diagonal) * gram.diagonal().diag()
        numerator, denominator = numerator + gram @ weight.mT, denominator + gram
    return (torch.linalg.inv(denominator) @ numerator).mT


def block_inputs(block, tokens):
    """What each linear layer of a block of open_clip gets for the tokens, by hooks."""
    seen = {}

    def keep(name, module, given, *_):
        seen[name] = given[0].flatten(0, -2)

    linear = {"mlp.c_fc.weight": block.mlp.c_fc, "mlp.c_proj.weight": block.mlp.c_proj}
    hooks = [m.register_forward_hook(partial(keep, name)) for name, m in linear.items()]
    with torch.no_grad():
        block(tokens)
        x, attention = block.ln_1(tokens), block.attn
        q, k, v = torch.nn.functional.linear(
            x, attention.in_proj_weight, attention.in_proj_bias
        ).chunk(3, dim=-1)
        q, k, v = (y.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for y in (q, k, v))
        values = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    for hook in hooks:
        hook.remove()
    seen["attn.in_proj_weight"] = x.flatten(0, -2)
    seen["attn.out_proj.weight"] = values.transpose(1, 2).flatten(2).flatten(0, -2)
    return seen


def written_out(visual, vectors, images, post_norm):
    """The definition: the merged network in float64."""
    models = [tuned(visual, vectors[task]) for task in TASKS]
    merged, states = copy.deepcopy(models[0]), [model.state_dict() for model in models]
    mean = {n: torch.stack([s[n] for s in states]).mean(0) for n in states[0]}
    if post_norm == "pretrained":
        mean |= {n: p.double() for n, p in visual.state_dict().items() if n.startswith("ln_post")}
    merged.load_state_dict(mean)
    with torch.no_grad():
        tokens = [merged._embeds(normalize(images[task]).double()) for task in TASKS]
        for number, block in enumerate(merged.transformer.resblocks):
            own = [model.transformer.resblocks[number] for model in models]
            seen = [block_inputs(b, x) for b, x in zip(own, tokens, strict=True)]
            state = block.state_dict()
            for name in seen[0]:
                weights = [b.state_dict()[name] for b in own]
                state[name] = merge_linear(weights, [of_task[name] for of_task in seen])
            block.load_state_dict(state)
            tokens = [block(x) for x in tokens]
        pooled = [model._pool(x)[0] for model, x in zip(models, tokens, strict=True)]
        # It is stored as inputs by outputs.
        merged.proj.copy_(merge_linear([m.proj.mT for m in models], pooled).mT)
    return merged.state_dict()


@pytest.mark.parametrize("post_norm", ["pretrained", "mean"])
def test_it_is_the_definition_written_out_with_hooks(post_norm):
    bench, vectors, visual = bench_and_vectors(OTHER)  # three blocks
    found = methods.regmean_plus_plus(vectors, bench=bench, post_norm=post_norm)["a"]
    images = {task: bench.images(task) for task in TASKS}
    expected = written_out(visual, vectors, images, post_norm)
    for name, p in visual.state_dict().items():
        # Activations are float32's, and each block carries the error of those before.
        near = {"rtol": 1e-5, "atol": 1e-5}
        torch.testing.assert_close(p.double() + found[name].double(), expected[name], **near)
    assert torch.equal(found["ln_post.weight"], torch.zeros(32)) == (post_norm == "pretrained")
    assert bench.forward_passes == pytest.approx(2 * 9 * len(TASKS)) and not bench.backward_passes


def test_its_first_block_is_regmeans_on_what_averaged_embeddings_give(small):
    bench, vectors, _ = small
    average = methods.weight_average(vectors)["a"]
    weights = {n: p + average[n] for n, p in bench.pretrained.items()}
    inputs = {}
    for task, vector in vectors.items():
        own = {n: p + vector[n] for n, p in bench.pretrained.items() if ".resblocks.0." in n}
        tokens = bench.embed(weights, bench.images(task))
        inputs[task] = bench.linear_inputs(own, lambda o=own, x=tokens: bench.run_block(o, 0, x))
    expected = methods.regmean(vectors, inputs=inputs)["a"]
    found = methods.regmean_plus_plus(vectors, bench=bench)["a"]
    names = [name for name in inputs["a"]]
    assert len(names) == 4
    for name in names:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-6, atol=1e-7)
    later = "transformer.resblocks.1.mlp.c_fc.weight"
    assert not torch.allclose(found[later], average[later], atol=1e-3)


def test_of_identical_tasks_it_is_that_task(small):
    bench, vectors, _ = small
    same = dict.fromkeys(TASKS, vectors["a"])
    found = methods.regmean_plus_plus(same, bench=bench, post_norm="mean")["a"]
    for name, delta in vectors["a"].items():
        torch.testing.assert_close(found[name], delta, rtol=1e-6, atol=1e-7)


def test_order_of_tasks_does_not_matter_to_the_last_bit(small):
    bench, vectors, _ = small
    found = read(methods.regmean_plus_plus(vectors, bench=bench))["a"]
    flipped = dict(reversed(vectors.items()))
    other = read(methods.regmean_plus_plus(flipped, bench=bench))["a"]
    assert all(torch.equal(found[name], other[name]) for name in found)


def test_it_computes_nothing_before_a_layer_is_wanted_and_once_then(small):
    bench, vectors, _ = small
    serve = partial(methods.regmean_plus_plus, bench=bench)
    served = served_by(serve, vectors, "regmean_plus_plus")
    assert type(served) is Shared and not bench.forward_passes
    whole = served.in_memory()["a"]
    passes = bench.forward_passes
    name = "transformer.resblocks.1.mlp.c_proj.weight"
    assert passes > 0 and torch.equal(served["a"][name], whole[name])
    assert torch.equal(served["a"]["proj"], whole["proj"]) and bench.forward_passes == passes


def test_images_of_a_task_that_are_missing_are_named():
    served = methods.regmean_plus_plus(random_vectors(2), bench=MadeUpBench(["task0"]))
    with pytest.raises(ValueError, match="no images of task1, but of task0"):
        served["task0"]["proj"]


def test_without_blocks_it_is_regmean():
    vectors = random_vectors(3)
    bench = MadeUpBench(vectors)
    inputs = {
        task: bench.linear_inputs(
            bench.pretrained, lambda t=task: bench.read_out(bench.pretrained, bench.images(t))
        )
        for task in vectors
    }
    found = read(methods.regmean_plus_plus(vectors, bench=bench))
    torch.testing.assert_close(found, read(methods.regmean(vectors, inputs=inputs)), **close)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"off_diagonal": 1.1}, r"off_diagonal=1.1 is not in \[0, 1\]"),
        ({"post_norm": "own"}, "post_norm='own' is not what the norm behind blocks is"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        methods.regmean_plus_plus({}, bench=None, **knobs)
