"""docs/own_backbone.md: a model of open_clip as backbone, by what stands there."""

import re
import shlex
from pathlib import Path

import pytest
from made_up import open_clip_models
from stand_ins.commands import SMALL, runs, tsv

PAGE = (Path(__file__).parents[2] / "docs/own_backbone.md").read_text(encoding="utf-8")
[YAML] = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
FETCH, RUN, ALONE = re.findall(r"^    tsv-\w+ (.*)$", PAGE, re.M)


@pytest.fixture
def folder(tmp_path):
    """A folder with the page's yaml, and a small model of open_clip in weights/."""
    assert "`my_conf/backbone/siglip.yaml`" in PAGE and YAML.count("\n") == 6
    (tmp_path / "my_conf/backbone").mkdir(parents=True)
    (tmp_path / "my_conf/backbone/siglip.yaml").write_text(YAML)
    made = open_clip_models.model("tiny-vit")
    preprocess_cfg = open_clip_models.PREPROCESSING
    open_clip_models.save(made, tmp_path / "weights", "tiny-vit", preprocess_cfg=preprocess_cfg)
    return tmp_path


def test_what_it_needs_is_named_before_any_work(folder):
    done = tsv(folder, "fetch", *shlex.split(FETCH), "check=true")
    assert done.code == 1
    assert re.search(r"weights of siglip +timm/ViT-B-16-SigLIP", done.out)
    assert re.search(r"tokenizer of siglip +timm/ViT-B-16-SigLIP", done.out)
    done = tsv(folder, "bench", *shlex.split(RUN))
    assert done.code == 1 and "weights of siglip (timm/ViT-B-16-SigLIP)" in done.err
    assert not (folder / "data").exists()


def test_weights_of_ones_own_are_fine_tuned_merged_and_evaluated(folder):
    line = [
        part.replace("ViT-B-32", "tiny-vit").replace("clip.pt", "weights")
        for part in shlex.split(ALONE)
    ]
    done = tsv(folder, "bench", *line, "method.alphas=[1.0]", *SMALL)
    assert done.code == 0, done.err
    assert "mine: tiny-vit of weights/open_clip_model.safetensors, GELU, images squash" in done.err
    run = runs(folder)["tsv_merge"]
    assert run.backbone == "mine" and list(run.test) == ["signs", "shapes"]
    assert list(folder.glob("data/signs-*/pixels-32-squash-bilinear/test.npy"))
    assert list(folder.glob("checkpoints/mine/signs-*.safetensors"))
    # A method that needs blocks of a ViT gets them; found again, nothing is built.
    again = tsv(folder, "bench", *line, "method.alphas=[1.0]", *SMALL)
    assert again.code == 0 and "already there" in again.err
