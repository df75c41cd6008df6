"""Fine-tuning on demand: what is made, when it is made again, and what a kill costs."""

import json
import signal
import threading
from dataclasses import asdict, replace
from pathlib import Path
from unittest import mock

import made_up.finetuning
import pytest
import torch
from made_up.finetuning import SETTINGS, source
from made_up.tasks import NUM_IMAGES, backbone, load, task
from safetensors.torch import load_file
from stand_ins.disk import read_only
from stand_ins.processes import Started

from tsv_bench.checkpoints import on_demand
from tsv_bench.models import accuracy, finetuning, zero_shot_head
from tsv_bench.models.training import Recipe
from tsv_bench.scores import score
from tsv_bench.state_dicts.state_dict import open_state_dict


@pytest.fixture
def trainings(monkeypatch):
    """Record the labels of the trainings."""
    trained = []

    def counted(*args, label, **kwargs):
        trained.append(label)
        return train(*args, label=label, **kwargs)

    train = finetuning.train
    monkeypatch.setattr(finetuning, "train", counted)
    return trained


def test_recipe_follows_from_epochs_images_and_batch():
    made = replace(SETTINGS, batch_size=128, warmup=0.1).recipe(epochs=10, num_images=2000)
    assert (made.steps, made.warmup_steps, made.batch_size) == (150, 15, 128)
    assert (made.rate, made.weight_decay, made.clip) == (0.01, 0.1, 1.0)
    assert made.rate_at(made.steps) == 0  # cosine to nothing
    # A warm-up in steps; never longer than the training; a batch never larger than the data.
    assert replace(SETTINGS, warmup=500).recipe(10, 16000).warmup_steps == 500
    small = replace(SETTINGS, batch_size=128, warmup=500).recipe(3, 50)
    assert small == Recipe(
        steps=3, batch_size=50, rate=0.01, warmup_steps=3, weight_decay=0.1, clip=1.0
    )


def test_fine_tuned_tower_is_better_and_the_backbone_is_as_it_was(tmp_path):
    tiny, made = backbone(), task()
    before = {name: param.clone() for name, param in tiny.pretrained.items()}
    found = source(tmp_path).checkpoint(tiny, made, load)

    head = zero_shot_head(tiny, made)
    zero_shot = score(accuracy.correct_images(tiny.visual, head, load("test"), "cpu"))
    assert found.scores["test"].accuracy > zero_shot.accuracy + 0.2
    assert found.scores["val"].total == NUM_IMAGES["val"]
    assert all(torch.equal(param, before[name]) for name, param in tiny.pretrained.items())
    assert not any(param.requires_grad for param in tiny.visual.parameters())

    # The scores are those of the weights on disk.
    tower = backbone().visual
    tower.load_state_dict(dict(open_state_dict(found.path)))
    correct = accuracy.correct_images(tower, head, load("test"), "cpu")
    assert score(correct) == found.scores["test"]


def test_record_says_how_it_was_made(tmp_path):
    found = source(tmp_path).checkpoint(backbone(), task(), load)
    record = json.loads(found.path.with_suffix(".json").read_text())
    assert record["settings"] == source(tmp_path).settings(backbone(), task())
    assert record["recipe"]["steps"] == 24 and record["sha256"] == found.sha256
    assert record["seconds"] > 0 and record["torch"] == torch.__version__
    assert record["processes"] == record["accumulate"] == 1
    assert record["scores"] == {split: asdict(score) for split, score in found.scores.items()}
    assert record["scores_in"] == "float32"
    assert not list(tmp_path.rglob("*.resume"))


def test_checkpoint_that_is_there_is_not_made_again(tmp_path, trainings):
    first = source(tmp_path).checkpoint(backbone(), task(), load)
    assert source(tmp_path).checkpoint(backbone(), task(), pytest.fail) == first
    assert trainings == ["fine-tune Tints"]
    again = source(tmp_path, overwrite=True).checkpoint(backbone(), task(), load)
    assert len(trainings) == 2 and again == first  # the same bits


def test_a_state_that_is_not_needed_any_more_goes(tmp_path, trainings):
    """A kill came between the checkpoint and this."""
    path = source(tmp_path).checkpoint(backbone(), task(), load).path
    path.with_suffix(".resume").write_bytes(b"left")
    source(tmp_path).checkpoint(backbone(), task(), load)
    assert not path.with_suffix(".resume").exists()


def test_a_finished_checkpoint_has_the_pretrained_tower_beside_it(tmp_path, trainings, monkeypatch):
    """tsv-merge needs both, and a kill may come between them."""
    killed = mock.Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr(on_demand, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        source(tmp_path).checkpoint(backbone(), task(), load)
    assert [*tmp_path.rglob("pretrained-*.safetensors")]


def test_other_settings_make_other_checkpoints(tmp_path, trainings):
    sources = [
        source(tmp_path),
        source(tmp_path, seed=1),
        source(tmp_path, finetuning=replace(SETTINGS, rate=0.02)),
    ]
    made = [s.checkpoint(backbone(), task(), load) for s in sources]
    made += [
        source(tmp_path).checkpoint(backbone(), other, load)
        for other in (task(epochs=5), task(templates=["a {} line"]))
    ]
    made += [source(tmp_path).checkpoint(backbone("another"), task(), load)]
    assert len({found.path for found in made}) == len(trainings) == 6
    # Another backbone of the same weights is the exception: nothing else differs.
    assert len({found.sha256 for found in made}) == 5


def test_checkpoints_made_before_a_setting_existed_are_still_found(tmp_path):
    """The file's name is that from before ``accumulate`` and ``precision`` existed."""
    assert source(tmp_path).path(backbone(), task()).name == "tints-69148324.safetensors"
    others = [replace(SETTINGS, accumulate=2), replace(SETTINGS, precision="bfloat16")]
    paths = {source(tmp_path, finetuning=f).path(backbone(), task()) for f in [SETTINGS, *others]}
    assert len(paths) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accumulate": 0}, "backbone.finetune.accumulate=0 is not a whole number of at least 1"),
        ({"precision": "float64"}, "precision='float64' is not one of float32, bfloat16, float16"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SETTINGS, **changes)


def test_more_parts_than_images_in_a_batch_are_refused(tmp_path):
    settings = replace(SETTINGS, accumulate=17)
    with pytest.raises(ValueError, match="16 images cannot be shared by 1 processes in 17 parts"):
        source(tmp_path, finetuning=settings).checkpoint(backbone(), task(), load)


def test_room_is_asked_for_what_is_missing(tmp_path):
    tiny, tasks = backbone(), [task(), task("other")]
    size = sum(param.nbytes for param in tiny.pretrained.values())
    assert source(tmp_path).needed(tiny, tasks) >= 2 * size
    for made in tasks:
        source(tmp_path).checkpoint(tiny, made, load)
    assert source(tmp_path).needed(tiny, tasks) == 0
    assert source(tmp_path, overwrite=True).needed(tiny, tasks) >= 2 * size


def test_truncated_weights_are_named_and_not_overwritten(tmp_path):
    path = source(tmp_path).checkpoint(backbone(), task(), load).path
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=f"{path} is not what was written there"):
        source(tmp_path).checkpoint(backbone(), task(), load)
    source(tmp_path, overwrite=True).checkpoint(backbone(), task(), load)


def test_weights_without_a_whole_record_are_made_again(tmp_path, trainings):
    first = source(tmp_path).checkpoint(backbone(), task(), load)
    record = first.path.with_suffix(".json")
    record.write_text(record.read_text()[:50])
    assert source(tmp_path).checkpoint(backbone(), task(), load) == first
    assert len(trainings) == 2


def test_two_who_want_the_same_checkpoint_train_once(tmp_path, trainings):
    found = []

    def want():
        found.append(source(tmp_path).checkpoint(backbone(), task(), load))

    # Each thread opens the lock file itself: for the lock that is as good as processes.
    threads = [threading.Thread(target=want) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(trainings) == 1 and len(found) == 2 and found[0] == found[1]


@pytest.mark.slow
def test_killed_run_is_resumed_to_the_same_bits(tmp_path):
    whole = source(tmp_path / "whole").checkpoint(backbone(), task(), load)

    # A process that saves its state after each step and does not get beyond the tenth.
    hold = (finetuning.__name__, "batch_rows", 11)
    with Started(tmp_path, made_up.finetuning.make, Path("killed"), hold=hold) as process:
        process.wait_until_held()
        process.send(signal.SIGKILL)
        process.wait()
    assert not list((tmp_path / "killed").rglob("*.safetensors"))
    assert len(list((tmp_path / "killed").rglob("*.resume"))) == 1

    steps = []

    def counted(num_rows, batch_size, step, seed):
        steps.append(step)
        return batch_rows(num_rows, batch_size, step, seed)

    batch_rows = finetuning.batch_rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetuning, "batch_rows", counted)
        resumed = source(tmp_path / "killed").checkpoint(backbone(), task(), load)
    assert steps == list(range(10, 24))
    assert resumed.sha256 == whole.sha256 and resumed.scores == whole.scores
    a, b = load_file(whole.path), load_file(resumed.path)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not list((tmp_path / "killed").rglob("*.resume"))


def test_a_checkpoint_that_may_only_be_read_is_found(tmp_path, trainings, monkeypatch):
    tiny, made, folder = backbone(), task(), tmp_path / "checkpoints"
    first = source(folder).checkpoint(tiny, made, load)
    read_only(monkeypatch, folder)
    assert source(folder).checkpoint(tiny, made, load) == first
    for other in (replace(source(folder), seed=7), replace(source(folder), overwrite=True)):
        with pytest.raises(OSError, match="Read-only file system"):
            other.checkpoint(tiny, made, load)
    assert len(trainings) == 1  # refused before it trains
