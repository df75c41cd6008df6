"""dry_run=true says what a merge would do, and refuses what it would refuse."""

import re

import pytest
from made_up.merges import made, pretrained, write_checkpoints
from stand_ins.commands import tsv


def dry(folder, *arguments):
    paths = ["pretrained=base.safetensors", "finetuned={a: a.safetensors, b: b.safetensors}"]
    return tsv(folder, "merge", *paths, "output=out.safetensors", "dry_run=true",
               "cache.folder=null", *arguments)  # fmt: skip


def test_nothing_is_written_and_all_is_said(tmp_path):
    write_checkpoints(tmp_path)
    before = sorted(tmp_path.iterdir())
    result = dry(tmp_path)
    assert result.code == 0, result.err
    assert sorted(tmp_path.iterdir()) == before
    rows = [line.split("  ")[0] for line in result.out.splitlines()]
    assert rows[:3] == ["what is done", "by matrices", "entry by entry: 2-D layers"]
    matrices = [n for n in ("visual.proj", "blocks.0.in_proj_weight", "blocks.0.c_proj.weight")]
    params = sum(pretrained()[name].numel() for name in (*matrices, "frozen"))
    assert re.search(rf"by matrices +4 +{params:,} ", result.out)
    assert re.search(r"kept as pretrained +2 +7 ", result.out)
    assert re.search(r"reads +3 checkpoints", result.out) and "about" in result.out
    assert re.search(r"writes +out.safetensors: 1 outputs, at most", result.out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["method.rank_fraction=3"], "rank_fraction=3 is not in"),
        (["output=there.safetensors"], "output there.safetensors is there already"),
        (["method=lata", "base=base.safetensors"], "dry_run=true is for methods that see"),
        (["dtype=int8"], "dtype='int8' is not a type that is written: float32, bfloat16, float16"),
    ],
)
def test_what_a_merge_would_refuse_is_refused(tmp_path, arguments, message):
    write_checkpoints(tmp_path)
    made(tmp_path, "weight_average", "there.safetensors")
    result = dry(tmp_path, *arguments)
    assert result.code == 1 and message in result.err, result.err
