"""What the yaml of a backbone must say."""

import pytest
from omegaconf import OmegaConf
from stand_ins.configurations import composed

from tsv_bench.cli.own.backbone import check_backbone

LOAD = {"_target_": "mine.load"}
OWN = {"name": "own", "label": "Own", "load": LOAD}


def check(backbone, checkpoints=None):
    check_backbone(OmegaConf.create({"backbone": backbone, "checkpoints": checkpoints or {}}))


def test_packaged_ones_and_a_loader_of_ones_own_pass():
    check_backbone(composed("bench", "backbone=vit_b32_laion2b"))
    check(OWN)
    check(OWN | {"finetune": {}}, {"finetuning": "x"})


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ([], "name"),
        (["backbone.name=x"], "load.architecture"),
        (["backbone.name=x", "backbone.load.architecture=ViT-B-32"], "load.pretrained"),
    ],
)
def test_what_open_clip_still_asks_for_is_said(given, missing):
    config = composed("bench", "backbone=open_clip", *given)
    with pytest.raises(ValueError, match=rf"backbone.{missing}= is missing. As in: backbone=open_"):
        check_backbone(config)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ({"name": "own", "label": "Own"}, "'own' has no load. Begin it with defaults:"),
        ({"label": "Own", "load": LOAD}, "'your own' has no name"),
        (OWN | {"load": {"architecture": "x"}}, "load has no _target_. Begin the yaml with def"),
        (OWN, "'own' has no finetune, how it is fine-tuned. Begin"),
    ],
)
def test_what_a_yaml_lacks_is_said(backbone, message):
    with pytest.raises(ValueError, match=message):
        check(backbone, {"finetuning": "x"})
