"""Pretraining: the corpus, the loss, and a run of two steps."""

import multiprocessing

import numpy as np
import pytest
import torch
from stand_ins import processes
from stand_ins.configurations import composed

from tsv_bench.cli.pretrain import check
from tsv_bench.models import build_mini, normalize, pretraining
from tsv_bench.models.mini import compact_tokens
from tsv_bench.models.pretraining import Shares, Subject, augment, contrastive_loss, draw_pair
from tsv_bench.models.training import Recipe, step_generator, train

SHARES = Shares(mixed=0.3, task=0.3, named=0.5)
SUBJECTS = [
    Subject(
        name="shapes",
        class_names=["circle", "square", "triangle"],
        captions=["a {}", "the shape of a {}"],
        generic=["a shape"],
    ),
    Subject(name="digits", class_names=["zero", "one"], captions=["a {}"], generic=["a number"]),
]


def test_loss_of_a_case_done_by_hand():
    """Three images, the first two with the same caption; unit features at known angles."""
    images = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    texts = torch.tensor([[1.0, 0.0], [5.0, 0.0], [0.0, 1.0]])
    captions, scale = torch.tensor([4, 4, 9]), 2.0
    # Cosines times the scale, of image i with text j.
    logits = np.array([[2.0, 2.0, 0.0], [0.0, 0.0, 2.0], [-2.0, -2.0, 0.0]])
    # Two texts have caption 4: each is half the target of each image with that caption.
    target = np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])

    def cross_entropy(logits):
        logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return -(target * logs).sum(axis=1).mean()

    expected = (cross_entropy(logits) + cross_entropy(logits.T)) / 2
    found = contrastive_loss(images, texts, captions, torch.tensor(scale))
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_loss_of_distinct_captions_is_that_of_clip():
    images, texts = torch.randn(6, 4), torch.randn(6, 4)
    logits = torch.cosine_similarity(images[:, None], texts[None], dim=-1) * 7
    index = torch.arange(6)
    expected = -(logits.log_softmax(0) + logits.log_softmax(1))[index, index].mean() / 2
    found = contrastive_loss(images, texts, torch.tensor([3, 1, 4, 5, 9, 2]), torch.tensor(7.0))
    torch.testing.assert_close(found, expected)


def corpus(num_images=12, seed=0, subjects=SUBJECTS):
    """Return what ``draw_corpus`` draws, in this process."""
    drawn = [pretraining.draw_subject((subject, num_images, SHARES, seed)) for subject in subjects]
    images = torch.from_numpy(np.concatenate([images for images, _ in drawn]))
    return images.permute(0, 3, 1, 2).contiguous(), [c for _, captions in drawn for c in captions]


def test_corpus_is_the_same_for_the_same_seed():
    images, captions = corpus()
    again, same = corpus(num_images=20)
    assert torch.equal(images[:12], again[:12]) and captions[:12] == same[:12]
    assert torch.equal(images[12:], again[20:32])
    other, _ = corpus(seed=1)
    assert not any(torch.equal(a, b) for a, b in zip(images, other, strict=True))


def test_captions_name_the_class_but_for_a_share_of_the_task_style():
    captions = [draw_pair(SUBJECTS[0], index, SHARES, 0)[1] for index in range(400)]
    known = {f.format(name) for name in SUBJECTS[0].class_names for f in SUBJECTS[0].captions}
    assert set(captions) == known | {"a shape"}
    # 0.3 of the images are in the task's style, half of them unnamed: 60 expected, sd 7.
    assert 30 <= captions.count("a shape") <= 90


@pytest.mark.slow
def test_another_process_draws_the_same_corpus(monkeypatch):
    """Of a server that has everything imported; spawned, it imports torch for seconds."""
    processes.ensure_server()
    monkeypatch.setattr(multiprocessing, "get_context", {"spawn": processes.SERVER}.get)
    images, captions = pretraining.draw_corpus(SUBJECTS, 12, SHARES, seed=0, processes=1)
    expected, same = corpus()
    assert torch.equal(images, expected) and captions == same
    assert images.dtype == torch.uint8 and images.shape == (24, 3, 30, 30)


def test_augmentation_is_the_generators():
    images = torch.randn(8, 3, 30, 30)
    before = images.clone()
    first = augment(images, 0.4, step_generator(0, 3))
    assert torch.equal(first, augment(images, 0.4, step_generator(0, 3)))
    assert not torch.equal(first, augment(images, 0.4, step_generator(0, 4)))
    assert torch.equal(images, before) and first.shape == images.shape


def pretrained(path, stop=None, **settings):
    """Pretrain a mini for two steps, or stop before step ``stop``."""
    images, captions = corpus()
    ids, tokens = compact_tokens("mini", captions)
    torch.manual_seed(0)
    model = build_mini("mini", len(ids))
    loss_at = pretraining.make_loss(
        model, images, captions, tokens, normalize, batch_size=8, share=0.4, max_scale=50, seed=0
    )

    def stopped(step):
        if step == stop:
            raise KeyboardInterrupt
        return loss_at(step)

    recipe = Recipe(steps=2, batch_size=8, rate=1e-3, warmup_steps=1, weight_decay=0.05, clip=1.0)
    train(model, stopped, recipe, label="pretrain", resume=path, **settings)
    return model.state_dict()


def test_two_steps_are_deterministic_and_resumable(tmp_path):
    first, again = pretrained(tmp_path / "a"), pretrained(tmp_path / "b")
    assert all(torch.equal(first[name], again[name]) for name in first)
    with pytest.raises(KeyboardInterrupt):
        pretrained(tmp_path / "c", stop=1, save_every=0)
    resumed = pretrained(tmp_path / "c")
    assert all(torch.equal(first[name], resumed[name]) for name in first)
    assert any("transformer" in name for name in first)  # the text tower is trained too


PRETRAIN = {
    "recipe.steps=x": "recipe.steps='x' is not a whole number from 1 on",
    "augmented=2": "augmented=2 is not in [0, 1]",
    "shares.mixed=x": "shares.mixed='x' is not in [0, 1]",
    "max_scale=0": "max_scale=0 is not a positive number",
    "output=null": "output=null is no path",
    "captions.digits=x": "captions.digits=x is no list of captions",
}


@pytest.mark.parametrize("mistake", PRETRAIN)
def test_a_mistake_is_found_before_images_are_drawn(mistake):
    with pytest.raises(ValueError) as caught:
        check(composed("pretrain", mistake))
    assert PRETRAIN[mistake] in str(caught.value)
