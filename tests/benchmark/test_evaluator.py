"""Which images are classified correctly, in batches that fit the memory, and their accuracy."""

from dataclasses import replace
from types import SimpleNamespace

import made_up.tasks
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tsv_bench.benchmark.evaluator import Evaluator
from tsv_bench.benchmark.runs import Score
from tsv_bench.data import Split
from tsv_bench.methods.learned.adapters import AdaptedVector, Adapter
from tsv_bench.models import normalize
from tsv_bench.models.accuracy import correct_images
from tsv_bench.models.devices import batch_sizes
from tsv_bench.scores import normalized_accuracy, score
from tsv_bench.task_vectors import task_vector
from tsv_bench.task_vectors.task_vector import apply


def split(num_images, num_classes=3, size=made_up.tasks.SIZE):
    images = torch.randint(0, 256, (num_images, 3, size, size), dtype=torch.uint8)
    return Split(images, torch.arange(num_images) % num_classes)


# More than a batch, and a ragged end.
@pytest.mark.parametrize("num_images", [1, 125, 260])
def test_correct_images_are_those_whose_highest_logit_is_the_label(num_images):
    visual = nn.Sequential(nn.Flatten(), nn.Linear(108, 8))
    head, data = torch.randn(3, 8), split(num_images)

    found = correct_images(visual, head, data, "cpu")
    assert found.dtype == bool and found.shape == (num_images,)
    weight, bias = (p.detach().double().numpy() for p in visual[1].parameters())
    for image, label, right in zip(data.images, data.labels, found, strict=True):
        features = weight @ normalize(image[None]).double().numpy().ravel() + bias
        # Normalizing one image's features changes no order of its logits.
        assert right == (np.argmax(head.double().numpy() @ features) == label.item())


def test_empty_split_is_an_error():
    with pytest.raises(ValueError, match="the split is empty"):
        correct_images(nn.Flatten(), torch.randn(3, 108), split(0), "cpu")


def tower():
    return nn.Sequential(nn.Flatten(), nn.Linear(108, made_up.tasks.DIM))


def watched(visual, full=lambda call, size: False):
    """Return the list of batch sizes that a tower gets; ``full`` says when memory runs out.

    A hook, because an evaluator's copy of the tower shares it.
    """
    sizes = []

    def look(module, args):
        sizes.append(len(args[0]))
        if full(len(sizes) - 1, sizes[-1]):
            raise torch.OutOfMemoryError("made up")

    visual.register_forward_pre_hook(look)
    return sizes


def test_nothing_is_fetched_from_the_device_before_the_split_is_through():
    """The meta device computes only shapes: an attempt to fetch a value from it fails."""
    visual = tower().to("meta")
    sizes = watched(visual)
    with pytest.raises(NotImplementedError, match="no data"):
        correct_images(visual, torch.randn(3, made_up.tasks.DIM), split(260), "meta")
    assert sizes == [125, 125, 10]


# Out of memory at the first batch, which is too large; or later, as another process takes memory.
@pytest.mark.parametrize("first", [0, 2])
def test_out_of_memory_half_the_batch_is_tried_and_said(first, caplog):
    visual, head, data = tower(), torch.randn(3, made_up.tasks.DIM), split(260)
    expected = correct_images(visual, head, data, "cpu", batch_size=100)
    sizes = watched(visual, lambda call, size: call >= first and size > 50)
    found = correct_images(visual, head, data, "cpu", batch_size=100)
    assert sizes == [100] * min(first + 1, 2) + [60] * (first == 2) + [50] * 5 + [10]
    assert np.array_equal(found, expected)
    assert caplog.text.count("cpu is out of memory at 100 images; trying 50") == 1


@pytest.mark.parametrize(("batch_size", "tried"), [(100, [100, 50]), (1, [1])])
def test_out_of_memory_twice_is_an_error_that_says_what_to_do(batch_size, tried):
    visual = tower()
    sizes = watched(visual, lambda call, size: True)
    message = (
        f"cpu has no memory to evaluate {' or '.join(map(str, tried))} images at a time. Lower"
    )
    with pytest.raises(ValueError, match=f"{message} evaluation.batch_size"):
        correct_images(visual, torch.randn(3, 8), split(260), "cpu", batch_size=batch_size)
    assert sizes == tried


def test_evaluator_does_not_try_again_what_did_not_fit(caplog):
    backbone = replace(made_up.tasks.backbone(), visual=tower())
    heads = {task: torch.randn(3, made_up.tasks.DIM) for task in "ab"}
    served, splits = (
        dict.fromkeys("ab", random_vector(backbone)),
        {task: split(50) for task in "ab"},
    )
    expected = Evaluator(backbone, heads, "cpu").correct(served, 0.5, splits)
    sizes = watched(backbone.visual, lambda call, size: size > 20)
    evaluate = Evaluator(backbone, heads, "cpu", batch_size=40)
    for _ in range(2):
        found = evaluate.correct(served, 0.5, splits)
        assert all(np.array_equal(found[task], expected[task]) for task in "ab")
    assert sizes == [40] + [20, 20, 10] * 4
    assert caplog.text.count("out of memory") == 1


@pytest.mark.parametrize("size", [0, -3, True, 2.5, "8"])
def test_batch_size_is_a_whole_number(size):
    with pytest.raises(ValueError, match="evaluation.batch_size=.* whole number of at least 1"):
        batch_sizes(size, "cpu")
    assert batch_sizes(7, "cpu") == [7, 3]  # what is tried in turn
    assert batch_sizes(None, "cuda") == [500, 250]
    for tokens, sizes in ((10, [125, 62]), (50, [40, 20]), (257, [7, 3]), (5000, [1])):
        tower = SimpleNamespace(positional_embedding=torch.zeros(tokens, 4))
        assert batch_sizes(None, "cpu", tower) == sizes
        assert batch_sizes(7, "cpu", tower) == [7, 3]
        assert batch_sizes(None, "cuda", tower) == [500, 250]


def evaluator(tasks):
    backbone = made_up.tasks.backbone()
    heads = {task: torch.randn(3, made_up.tasks.DIM) for task in tasks}
    return backbone, heads, Evaluator(backbone, heads, "cpu")


def random_vector(backbone):
    return {name: torch.randn_like(param) for name, param in backbone.pretrained.items()}


def test_each_task_is_served_pretrained_plus_alpha_times_its_vector():
    backbone, heads, evaluate = evaluator("abc")
    vectors = {task: random_vector(backbone) for task in "abc"}
    splits, done = {task: split(40) for task in "abc"}, []
    found = evaluate.correct(vectors, 0.3, splits, done=lambda: done.append(1))
    assert len(done) == 3
    for task in "abc":
        tower = nn.Sequential(*made_up.tasks.backbone().visual)
        with torch.no_grad():
            for name, param in tower.named_parameters():
                param += 0.3 * vectors[task][name]
            features = F.normalize(tower(normalize(splits[task].images)), dim=-1)
        expected = (features @ heads[task].T).argmax(1) == splits[task].labels
        assert np.array_equal(found[task], expected.numpy())


def test_features_pass_through_the_tasks_adapter_before_its_head():
    backbone, heads, evaluate = evaluator("ab")
    vector, splits = random_vector(backbone), {task: split(60) for task in "ab"}
    dim = made_up.tasks.DIM
    adapters = {task: Adapter(torch.randn(3, dim), torch.randn(dim, 3)) for task in "ab"}
    served = {task: AdaptedVector(vector, lambda _: adapters) for task in "ab"}
    found = evaluate.correct(served, 0.5, splits)
    backbone.visual.load_state_dict(apply(backbone.pretrained, vector, 0.5))
    for task, data in splits.items():
        z = backbone.visual(normalize(data.images)).detach()
        z = z - (z @ adapters[task].down.T).relu() @ adapters[task].up.T
        logits = F.normalize(z, dim=-1) @ heads[task].T
        assert np.array_equal(found[task], (logits.argmax(dim=1) == data.labels).numpy())
    assert not np.array_equal(found["a"], evaluate.correct({"a": vector}, 0.5, {"a": splits["a"]}))


def test_vector_served_to_all_is_loaded_once(monkeypatch):
    backbone, _, evaluate = evaluator("abc")
    shared, alphas = random_vector(backbone), []

    def counted(pretrained, vector, alpha):
        assert vector is shared
        alphas.append(alpha)
        return apply(pretrained, vector, alpha)

    monkeypatch.setattr(task_vector, "apply", counted)
    splits = {task: split(5) for task in "abc"}
    evaluate.correct(dict.fromkeys("abc", shared), 1.0, splits)
    # The same vector at another alpha is another model.
    evaluate.correct(dict.fromkeys("abc", shared), 0.5, splits)
    assert alphas == [1.0, 0.5]


def test_backbone_is_left_alone_and_alpha_does_not_add_up():
    backbone, _, evaluate = evaluator("a")
    before = {name: param.clone() for name, param in backbone.pretrained.items()}
    served, splits = {"a": random_vector(backbone)}, {"a": split(60)}
    first = evaluate.correct(served, 1.0, splits)["a"]
    evaluate.correct(served, 30.0, splits)
    assert np.array_equal(evaluate.correct(served, 1.0, splits)["a"], first)
    assert all(torch.equal(param, before[name]) for name, param in backbone.pretrained.items())


def test_only_the_asked_tasks_are_evaluated():
    backbone, _, evaluate = evaluator("abc")
    served = {task: random_vector(backbone) for task in "abc"}
    assert set(evaluate.correct(served, 1.0, {"b": split(3)})) == {"b"}


def test_score_counts():
    assert score(np.array([1, 0, 1, 1], bool)) == Score(accuracy=0.75, correct=3, total=4)
    assert score(np.zeros(2, bool)) == Score(accuracy=0.0, correct=0, total=2)


def test_normalized_is_the_mean_of_ratios_not_the_ratio_of_means():
    found = normalized_accuracy({"a": 0.4, "b": 0.9}, {"a": 0.8, "b": 0.9})
    assert found == pytest.approx((0.5 + 1.0) / 2)
    assert found != pytest.approx((0.4 + 0.9) / (0.8 + 0.9))
    # Of the asked tasks only, and above 1 where merging helps.
    assert normalized_accuracy({"a": 0.9}, {"a": 0.6, "b": 0.0}) == pytest.approx(1.5)


def test_fine_tuned_model_that_is_never_right_cannot_normalize():
    with pytest.raises(ValueError, match="fine-tuned model of b gets no image right"):
        normalized_accuracy({"a": 0.4, "b": 0.0}, {"a": 0.8, "b": 0.0})
