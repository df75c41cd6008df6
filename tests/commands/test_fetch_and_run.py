"""From nothing to two Runs as a user gets there, each command as the one before it printed it.

Three of the twenty tasks as conf/task/ has them, with fewer images. Their files lie on a hub on
this machine, in the forms of the real ones, beside a small CLIP and fine-tuned copies of it. Two
labels of three are what open_clip, by itself, sees in the image: so it is known which are right.
"""

import io
import re
import shlex
import shutil
from types import SimpleNamespace

import datasets
import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from huggingface_hub import constants
from hydra import compose, initialize_config_dir
from made_up import backbones as backbones
from made_up.hub_data import write_parquet, write_tars
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from stand_ins.commands import runs, tsv
from stand_ins.loopback_hub import LoopbackHub

from tsv_bench.benchmark.runs import find_runs, load_correct
from tsv_bench.cli.config.overrides import CONF, checked
from tsv_bench.cli.config.tasks import make_tasks
from tsv_bench.data import splits

pytestmark = pytest.mark.slow  # half a minute

SIZES = {"train": 60, "test": 20}
VAL = splits.train_and_val_rows(60)[1].numpy()
TASKS = {"svhn": "SVHN", "pcam": "PCAM", "fer2013": "FER2013"}
WHICH = [
    "suite=vision14",
    f"suite.tasks=[{','.join(TASKS)}]",
    "backbone=vit_b32",
    f"backbone.load.architecture={backbones.SMALL}",
    "checkpoints=tall_masks",
    "suite.tasks.fer2013.prompts=paper",
    *(f"suite.tasks.{task}.sizes={{train:54,val:6,test:20}}" for task in TASKS),
    *(f"suite.tasks.{task}.source.sizes={{train:60,test:20}}" for task in TASKS),
]
HOW = ["device=cpu", "threads=1"]

README = """---
configs:
- config_name: {config}
  data_files:
  - {{split: train, path: {folder}/train-*}}
  - {{split: {more}, path: {folder}/{more}-*}}
  - {{split: test, path: {folder}/test-*}}
---
"""


def picture(row, split, kind="PNG"):
    """Patches of strong colors, of which those at the sides are cropped."""
    rng = np.random.default_rng([row, len(split)])
    image = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
    file = io.BytesIO()
    image.resize((60, 40), Image.Resampling.NEAREST).save(file, kind)
    return file.getvalue()


def jpeg(row, split):
    return picture(row, split, "JPEG")


def transformed(contents):
    transform = open_clip.image_transform(
        32, is_train=False, mean=OPENAI_DATASET_MEAN, std=OPENAI_DATASET_STD
    )
    return torch.stack([transform(Image.open(io.BytesIO(content))) for content in contents])


def seen(clip, tokenizer, task, contents):
    """What open_clip predicts for encoded images, by its own transform and its own prompts."""
    heads = [F.normalize(clip.encode_text(tokenizer(p)), dim=-1).mean(dim=0) for p in task.prompts]
    logits = clip.encode_image(transformed(contents)) @ F.normalize(torch.stack(heads), dim=-1).mT
    return logits.argmax(dim=-1).numpy()


def right(rows):
    """Whether the labels of these rows are what the task's own model sees."""
    return rows % 3 != 0


def finetuned(pretrained, seed):
    """The image tower moved a little; as the paper's code saves it, text leftovers beside it.

    Its projection drops what all images have in common, else they would be seen as one class.
    """
    tuned = backbones.clip()
    noise = torch.Generator().manual_seed(seed)
    for name, param in tuned.visual.named_parameters():
        shift = torch.randn(param.shape, generator=noise) * param.std().nan_to_num(0.1)
        param.copy_(pretrained.visual.get_parameter(name) + 0.3 * shift)
    projection = tuned.visual.proj.clone()
    tuned.visual.proj.set_(torch.eye(len(projection)))
    common = tuned.encode_image(transformed([picture(row, "train") for row in range(60)])).mean(0)
    common = F.normalize(common, dim=0)
    tuned.visual.proj.set_(projection - torch.outer(common, common @ projection))
    file = io.BytesIO()
    torch.save({f"model.{name}": tensor for name, tensor in tuned.state_dict().items()}, file)
    return tuned, file.getvalue()


def serve(hub, folder):
    """Data sets, weights and checkpoints where conf/ says that they are."""
    lines = checked("bench", WHICH)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("bench", lines)
    tasks = make_tasks(config.suite.tasks)
    pretrained, checkpoints = backbones.clip(), {}
    tokenizer = open_clip.get_tokenizer(backbones.SMALL)
    for seed, (name, theirs) in enumerate(TASKS.items()):
        tuned, content = finetuned(pretrained, seed)
        checkpoints[f"single_task/ViT-B-32/{theirs}Val/nonlinear_finetuned.pt"] = content
        for split, num_images in SIZES.items():
            contents = [(jpeg if name == "fer2013" else picture)(r, split) for r in range(60)]
            found = seen(tuned, tokenizer, tasks[name], contents)
            num_classes = len(tasks[name].class_names)
            assert len(set(found)) > 1, (name, found)  # else nothing could be told by it
            labels = np.where(right(np.arange(60)), found, (found + 1) % num_classes).tolist()
            place = folder / name
            if name == "svhn":
                classes = datasets.ClassLabel(names=[str(digit) for digit in range(10)])
                pattern = "cropped_digits/{split}-{shard:05d}-of-00002.parquet"
                write_parquet(place, {split: num_images}, feature=classes, content=picture,
                              labels=labels.__getitem__, pattern=pattern)  # fmt: skip
            elif name == "pcam":
                write_parquet(place, {split: num_images}, feature=datasets.Value("bool"),
                              labels=[*map(bool, labels)].__getitem__, content=picture)  # fmt: skip
            else:
                write_tars(place, {split: num_images}, labels=labels.__getitem__, content=jpeg)
    further = {"svhn": "extra", "pcam": "valid"}  # splits that nobody should fetch
    for name, more in further.items():
        config, at = ("cropped_digits",) * 2 if name == "svhn" else ("default", "data")
        (folder / name / at / f"{more}-00000-of-00001.parquet").write_bytes(b"not to be fetched")
        readme = README.format(config=config, folder=at, more=more)
        (folder / name / "README.md").write_text(readme)
    for name, task in tasks.items():
        files = [path for path in (folder / name).rglob("*") if path.is_file()]
        named = {str(path.relative_to(folder / name)): path.read_bytes() for path in files}
        hub.add("dataset", task.source.repo, named)
    weights = backbones.save(pretrained, folder / "open_clip_model").read_bytes()
    hub.add("model", "timm/vit_base_patch32_clip_224.openai", {
        "open_clip_model.safetensors": weights, "model.safetensors": "of another library",
    })  # fmt: skip
    checkpoints["single_task/ViT-B-32/CarsVal/nonlinear_finetuned.pt"] = b"of another task"
    hub.add("model", "nik-dim/tall_masks", checkpoints)


def command_in(text, start):
    """The arguments of the command that stands there after ``start``."""
    [line] = [line for line in text.splitlines() if start in line]
    return shlex.split(line.partition(start)[2])


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """What each command answered, in the order in which a user comes to them."""
    folder, told = tmp_path_factory.mktemp("work"), SimpleNamespace()
    with pytest.MonkeyPatch.context() as patch, LoopbackHub(folder.parent / "hub") as hub:
        hub.use(patch, folder.parent / "home")
        made = tmp_path_factory.mktemp("made")
        serve(hub, made)
        told.folder, told.hub = folder, hub
        told.before = tsv(folder, "bench", "method=individual", *WHICH, *HOW)
        told.left_before = list(folder.iterdir()), list(hub.requests)
        needed = command_in(told.before.err, "Fetch it with: tsv-fetch")
        told.fetched = tsv(folder, "fetch", *needed)
        told.checked = tsv(folder, "fetch", *WHICH, "check=true")
        hub.close()
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        asked = len(hub.requests)
        told.offline = command_in(told.fetched.out, "HF_HUB_OFFLINE=1 tsv-bench")
        told.too_early = tsv(folder, "bench", "method=tsv_merge", *told.offline, *HOW)
        told.left_early = [*folder.rglob("*.npy"), *folder.rglob("*.json")]
        needed = command_in(told.too_early.err, "Make it with: tsv-bench")
        told.individual = tsv(folder, "bench", *needed)
        told.merged = tsv(folder, "bench", "method=tsv_merge", *told.offline, *HOW)
        told.asked_offline = hub.requests[asked:]
        yield told


def test_before_fetching_all_that_is_missing_is_named_and_nothing_is_begun(story):
    result = story.before
    assert result.code == 1 and "Traceback" not in result.err
    assert "7 of the 7 things that are needed from the hub are not here:" in result.err
    for repo in ("ufldl-stanford/svhn", "1aurent/PatchCamelyon", "clip-benchmark/wds_fer2013",
                 "timm/vit_base_patch32_clip_224.openai", "nik-dim/tall_masks"):  # fmt: skip
        assert f"({repo}), " in result.err
    assert "weights of vit_b32 (timm/vit_base_patch32_clip_224.openai), 605 MB" in result.err
    assert story.left_before == ([], [])


def test_the_command_that_was_named_fetches_what_is_needed_and_no_more(story):
    assert story.fetched.code == 0, story.fetched.err
    names = [name for name, _ in story.hub.contents()]
    assert len(names) == 18 and names.count("README.md") == 2
    assert not [n for n in names if re.search(r"valid|extra|Cars|^model\.safetensors", n)]
    assert story.checked.code == 0, story.checked.err
    table = [line for line in story.checked.out.splitlines() if line.endswith("  here")]
    assert len(table) == 7


def test_a_merge_without_the_individual_models_says_how_to_make_them(story):
    result = story.too_early
    assert result.code == 1 and "Traceback" not in result.err
    assert "svhn, pcam, fer2013" in result.err and "normalizer=published" in result.err
    assert story.left_early == []


def test_without_a_network_each_image_is_seen_as_open_clip_sees_it(story):
    assert story.individual.code == 0, story.individual.err
    [(path, run)] = find_runs(story.folder / "runs", method="individual")
    correct = load_correct(path)
    for task in TASKS:
        assert np.array_equal(correct[task], right(np.arange(20))), task
        assert (run.val[task].correct, run.val[task].total) == (right(VAL).sum(), 6)
    assert run.normalized == 1 and story.asked_offline == []


def test_the_merge_is_normalized_by_them_and_says_what_it_is_of(story):
    assert story.merged.code == 0, story.merged.err
    found = runs(story.folder)
    merged, individual = found["tsv_merge"], found["individual"]
    own = {task: score.accuracy for task, score in individual.test.items()}
    assert merged.normalizer == own and "(fixed)" in merged.normalizer_source
    assert len(merged.alpha_curve) == 30
    shares = [merged.test[task].accuracy / own[task] for task in TASKS]
    assert merged.normalized == pytest.approx(np.mean(shares))
    assert merged.variants == {"fer2013": "prompts of the paper"}
    assert {merged.checkpoints[task]["generation"] for task in TASKS} == {"fixed"}


def files(folder):
    return sorted(
        path for path in folder.rglob("*") if path.is_file() and ".lease-" not in path.name
    )


DIGITS = [str(digit) for digit in range(10)]
MISTAKES = {
    "class order": (
        [f"suite.tasks.svhn.class_names=['1','0',{','.join(map(repr, DIGITS[2:]))}]"],
        "its classes in another order: label 0 is '0', '1' expected; label 1 is '1', '0' expected",
    ),
    "size": (
        ["suite.tasks.pcam.source.sizes.test=21", "suite.tasks.pcam.sizes.test=21"],
        "1aurent/PatchCamelyon has 20 images in its split 'test', 21 expected",
    ),
    "split": (
        ["suite.tasks.fer2013.source.splits.test=valid"],
        "has no split 'valid'; there are train, test",
    ),
    "column": (
        ["suite.tasks.fer2013.source.image=image"],
        "clip-benchmark/wds_fer2013 has no column 'image'; there are ",
    ),
    "another backbone": (
        [f"backbone.load.architecture={backbones.OTHER}"],
        f"does not fit architecture '{backbones.OTHER}' of open_clip",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found_before_an_image_is_decoded(story, mistake):
    changes, message = MISTAKES[mistake]
    before = files(story.folder)
    result = tsv(story.folder, "bench", "method=individual", *story.offline, *HOW, *changes)
    assert result.code == 1 and message in result.err, result.err
    assert "Traceback" not in result.err and files(story.folder) == before


def test_a_disk_too_small_for_the_images_is_found_before_one_is_decoded(story, monkeypatch):
    usage = shutil.disk_usage(story.folder)
    room = {"data": 1000}  # bytes; 8 images need more
    monkeypatch.setattr(
        shutil, "disk_usage", lambda at: usage._replace(free=room.get(at.name, usage.free))
    )
    elsewhere = ["paths.data=elsewhere/data", "overwrite=true"]
    result = tsv(story.folder, "bench", "method=individual", *story.offline, *HOW, *elsewhere)
    assert result.code == 1 and "elsewhere/data has 0 MB free" in result.err
    assert files(story.folder / "elsewhere") == []
