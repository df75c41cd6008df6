"""Fine-tuning for a method is that of checkpoints, bit for bit, also after a kill."""

from dataclasses import replace

import pytest
import torch
from made_up.backbones import SMALL, clip, save
from made_up.tasks import encode_text, task

from tsv_bench import methods
from tsv_bench.benchmark.given import training
from tsv_bench.benchmark.given.image_bench import ImageBench
from tsv_bench.benchmark.given.training import Rows, Training
from tsv_bench.checkpoints.on_demand import OnDemand
from tsv_bench.data import Split
from tsv_bench.models import finetuning, load_clip, zero_shot_heads
from tsv_bench.models.finetuning import Finetuning
from tsv_bench.state_dicts.state_dict import open_state_dict
from tsv_bench.state_dicts.steps.unfinished import Unfinished
from tsv_bench.task_vectors.task_vector import TaskVector, apply

NAMES = ["a", "b", "c"]
HOW = Finetuning(batch_size=8, rate=1e-3, warmup=0.3, weight_decay=0.1, clip=1.0, shift=2)
SEED = 3


class Suite:
    """Three tasks, of another number of images each, on a small CLIP."""

    def __init__(self, folder):
        weights = str(save(clip(), folder / "clip"))
        self.folder = folder
        loaded = load_clip(name="s", label="S", architecture=SMALL, weights=weights)
        # Quicker than the text tower.
        self.backbone = replace(loaded, encode_text=lambda texts: encode_text(texts).repeat(1, 3))
        self.tasks = {name: task(name, epochs=2) for name in NAMES}
        self.heads = zero_shot_heads(self.backbone, self.tasks)
        drawn = torch.Generator().manual_seed(0)
        self.splits = {
            name: Split(
                torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=drawn),
                torch.randint(0, 3, (n,), generator=drawn),
            )
            for name, n in zip(NAMES, (20, 24, 17), strict=True)
        }

    def bench(self, name, finetuning=HOW):
        unfinished = Unfinished(self.folder / name, "m")
        return ImageBench(
            self.backbone, self.heads,
            {n: Rows(split.images, torch.arange(len(split))) for n, split in self.splits.items()},
            {n: split.labels for n, split in self.splits.items()},
            device="cpu", seed=SEED, unfinished=unfinished,
            training=Training(
                finetuning=finetuning, seed=SEED, device="cpu", unfinished=unfinished,
                epochs={n: task.epochs for n, task in self.tasks.items()},
            ),
        )  # fmt: skip

    def vectors(self):
        """Task vectors of checkpoints that the source fine-tunes."""
        source = OnDemand(folder=self.folder / "made", finetuning=HOW, seed=SEED, device="cpu")
        found = {}
        for name, of_task in self.tasks.items():
            made = source.checkpoint(self.backbone, of_task, lambda _, n=name: self.splits[n])
            found[name] = TaskVector(self.backbone.pretrained, open_state_dict(made.path))
        return found


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return Suite(tmp_path_factory.mktemp("training"))


def layers(served):
    vector = next(iter(served.values()))
    return {name: vector[name] for name in vector}


def test_one_round_of_the_recipe_is_the_average_of_the_tasks_own_models_bit_for_bit(suite):
    vectors = suite.vectors()
    averaged = layers(methods.weight_average(vectors))
    bench = suite.bench("one round")
    merged = layers(methods.atm(vectors, bench=bench, rounds=1, schedule="recipe"))
    assert any(layer.any() for layer in averaged.values())
    for name in averaged:
        assert torch.equal(merged[name], averaged[name]), name
    pretrained = suite.backbone.pretrained
    models = [apply(pretrained, vector, 1.0) for vector in (merged, averaged)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in pretrained)
    passed = sum(2 * (n // 8) * 8 for n in (20, 24, 17))
    assert (bench.forward_passes, bench.backward_passes) == (passed, passed)


def tuned(bench, **how):
    settings = {"steps": 4, "name": "a, round 1 of 1", "constant": True} | how
    return bench.fine_tune("a", bench.pretrained, **settings)


def test_what_was_killed_in_a_step_goes_on_there(suite, monkeypatch):
    expected = tuned(suite.bench("whole"))
    taken, batch_rows = [], finetuning.batch_rows

    def dies(*given):
        if given[2] == 2:
            raise KeyboardInterrupt
        return noted(*given)

    def noted(*given):
        taken.append(given[2])
        return batch_rows(*given)

    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(finetuning, "batch_rows", dies)
    with pytest.raises(KeyboardInterrupt):
        tuned(suite.bench("killed"))
    [left] = (suite.folder / "killed").glob("*.resume")
    monkeypatch.setattr(finetuning, "batch_rows", noted)
    bench = suite.bench("killed")
    found = tuned(bench)
    assert taken == [0, 1, 2, 3] and not left.exists()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert bench.forward_passes == 4 * 8  # as if it had not been killed


def test_a_state_is_that_of_one_training_alone(tmp_path):
    places = {Unfinished(tmp_path, made).resume(name) for made in "mn" for name in ("a", "b")}
    assert len(places) == 4


def test_the_next_batches_are_taken_and_none_twice(suite, monkeypatch):
    taken, batch_rows = [], finetuning.batch_rows
    monkeypatch.setattr(
        finetuning, "batch_rows", lambda *given: taken.append(given[2]) or batch_rows(*given)
    )
    bench = suite.bench("batches")
    tuned(bench, steps=2)
    tuned(bench, steps=2, first=2)
    assert taken == [0, 1, 2, 3]


def test_the_rate_is_constant_or_the_recipes_and_fields_of_it_can_be_changed(suite, monkeypatch):
    recipes, train = [], finetuning.train

    def noted(visual, loss_at, recipe, **how):
        recipes.append(recipe)
        return train(visual, loss_at, recipe, **how)

    monkeypatch.setattr(finetuning, "train", noted)
    bench = suite.bench("rates")
    tuned(bench, steps=10)
    tuned(bench, steps=10, constant=False, rate=1e-4, batch_size=4, weight_decay=0)
    constant, changed = recipes
    assert {constant.rate_at(step) for step in range(10)} == {1e-3}
    assert changed.warmup_steps == 3 and changed.rate_at(2) == 1e-4 > changed.rate_at(9)
    assert (changed.batch_size, changed.weight_decay) == (4, 0)
    assert bench.num_steps("a") == 4 and bench.num_steps("a", 3, 4) == 15
    assert bench.num_steps("c", 1) == 2


def test_the_backbone_and_the_weights_that_it_starts_from_stay(suite):
    bench = suite.bench("stays")
    before = {name: p.clone() for name, p in bench.pretrained.items()}
    found = tuned(bench)
    assert not torch.equal(found["proj"], before["proj"])
    assert all(torch.equal(p, before[name]) for name, p in bench.pretrained.items())
    visual = suite.backbone.visual
    assert all(torch.equal(p, before[name]) for name, p in visual.state_dict().items())
    assert not visual.training and not any(p.requires_grad for p in visual.parameters())


def test_rows_are_read_when_they_are_wanted():
    images = torch.arange(20).reshape(10, 2)
    rows = Rows(images, torch.tensor([1, 4, 7]))
    assert len(rows) == 3 and torch.equal(rows[torch.tensor([2, 0])], images[[7, 1]])
    assert torch.equal(rows[:], images[[1, 4, 7]])
    images[4] = 0
    assert not rows[1:2].any()


def test_without_its_line_in_the_yaml_a_method_may_not_fine_tune(suite):
    images = {name: split.images for name, split in suite.splits.items()}
    bench = ImageBench(suite.backbone, suite.heads, images, None, device="cpu", seed=0)
    with pytest.raises(ValueError, match="its yaml does not say fine_tunes: true"):
        bench.num_steps("a")
    with pytest.raises(ValueError, match="its yaml does not say fine_tunes: true"):
        tuned(bench)
